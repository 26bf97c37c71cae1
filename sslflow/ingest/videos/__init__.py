"""Video files to prepared clips."""
