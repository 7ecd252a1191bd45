"""Modules that write training records from labels: groups by query, tokens, shards and worker processes."""
