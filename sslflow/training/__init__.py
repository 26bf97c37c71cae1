"""The training loop, optimisers, and what a method is."""
