"""The folder of a run: its configuration, checkpoints, logs and status."""
