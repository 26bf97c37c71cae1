"""The section about images and captions."""
