"""The four perspectives, which find positives in the log tables, and judgements as labels."""
