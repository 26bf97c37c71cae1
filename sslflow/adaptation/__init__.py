"""What methods of domain adaptation share."""
