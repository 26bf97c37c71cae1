"""Methods for text: one file each, none imports another."""
