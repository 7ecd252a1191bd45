"""Mining: candidate pairs, their scores, the evidence, and labels from it, by day or at once."""
