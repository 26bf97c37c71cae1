"""What a trained method for clips can do, on sources that it has not seen."""
