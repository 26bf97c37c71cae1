"""What shards hold: prepared data, splits, normalisation."""
