"""The relevance discriminator (theta) in mining: its training pairs, its choice, and the precision of its decisions."""
