"""H-InfoNCE: api.py is the operation, every other file one implementation of it."""
