"""Features of prepared data by a frozen encoder, and where they are kept."""
