"""A run's folder: its configuration, checkpoints, logs and status."""
