"""Encoders, heads, decoders and teachers."""
