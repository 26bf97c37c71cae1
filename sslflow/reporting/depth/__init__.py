"""The report's section about depth."""
