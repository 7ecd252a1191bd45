"""Labels into training records: groups by query, tokens, shards, worker processes."""
