"""Scores of domain adaptation."""
