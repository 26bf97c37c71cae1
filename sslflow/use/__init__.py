"""Encoders put to use outside of the pipeline: features of any folder, a search in them, files for other programs."""
