"""The audit of pseudo-labels: how stable and how sure clusters are, how many there should be, and which look wrong."""
