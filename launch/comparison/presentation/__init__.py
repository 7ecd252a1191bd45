"""The page of a comparison, its picture, the claims of the paper with their verdicts, and the paper's figures."""
