"""The log tables of the world: logs, graded judgements, documents of a simulated language model, and statistics."""
