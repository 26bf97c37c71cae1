"""What stages will cost, measured with their own parts before they run."""
