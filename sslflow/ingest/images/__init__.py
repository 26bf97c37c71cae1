"""Image files to prepared images."""
