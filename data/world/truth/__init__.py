"""What is true in the world: its words, documents, queries and users."""
