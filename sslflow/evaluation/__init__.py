"""Evaluation of frozen features and of encoders."""
