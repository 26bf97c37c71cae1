"""Files, checkpoints, devices, processes, random numbers."""
