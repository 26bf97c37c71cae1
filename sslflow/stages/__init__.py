"""Stages: read params, read files, call the library, write files."""
