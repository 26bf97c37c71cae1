"""Adaptation methods, one file each; a file's name is its method's."""
