"""The section about what methods for text know of language."""
