"""The results of finished cells as small files that may be committed, and the table that is made from them."""
