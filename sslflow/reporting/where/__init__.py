"""What is where: how the report shows segmentation, detection and localisation."""
