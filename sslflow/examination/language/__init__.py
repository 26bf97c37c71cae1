"""What a method for text knows of language, on passages kept for testing."""
