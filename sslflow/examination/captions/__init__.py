"""What methods that learn from captions can do with images that they have not seen."""
