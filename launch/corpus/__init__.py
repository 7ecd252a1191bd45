"""The texts, vectors and ids of the documents that are searched."""
