"""What is where: segmentation, detection and localisation on an encoder's maps."""
