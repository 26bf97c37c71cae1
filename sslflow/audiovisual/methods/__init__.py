"""Methods for clips of sound and pictures: one file each."""
