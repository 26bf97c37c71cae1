"""From files of any kind to prepared images on disk, and back into memory."""
