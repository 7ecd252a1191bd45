"""The truth of the world: its words, documents, queries and users, with their hidden properties."""
