"""The four perspectives: log tables in, positives out; and judgements as labels."""
