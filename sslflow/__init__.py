"""Self-supervised learning from a folder of images to a representation that is shown to be good."""

__version__ = "0.1.0"
