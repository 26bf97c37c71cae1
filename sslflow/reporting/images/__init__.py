"""The report on features of images."""
