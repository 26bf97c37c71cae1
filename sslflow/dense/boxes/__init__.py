"""Things in boxes: found by a detector, or without any label."""
