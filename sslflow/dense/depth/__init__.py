"""How far away every pixel is, and how well that is known."""
