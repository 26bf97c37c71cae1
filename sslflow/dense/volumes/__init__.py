"""The classes of all voxels, and how well they are known."""
