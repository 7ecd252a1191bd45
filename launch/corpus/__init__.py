"""The documents that are searched: their texts, vectors and ids."""
