"""Methods for volumes: one file each, none imports another."""
