"""Raw files to shards."""
