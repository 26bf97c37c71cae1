"""The classes of all pixels, and how well they are known."""
