"""Text to prepared passages."""
