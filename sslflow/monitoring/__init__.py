"""Diagnostics and verdict of a run."""
