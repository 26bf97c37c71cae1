"""Flows: the order in which stages run. They know stage names and files, and nothing of what a stage does."""
