"""The report on domain adaptation."""
