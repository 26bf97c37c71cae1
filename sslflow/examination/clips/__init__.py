"""What methods for clips can do, on sources that they have not seen."""
