"""Mining: candidate pairs, their scores, the evidence for them, and the labels, by day or in one run."""
