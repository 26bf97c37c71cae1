"""What is where: segmentation and detection on an encoder's maps."""
