"""Volumes of any format to blocks."""
