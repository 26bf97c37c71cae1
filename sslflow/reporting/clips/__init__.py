"""The report on methods for clips."""
