"""What is drawn by chance: augmentation, tiles, crops."""
