"""Losses that need every score of a batch and not only sums over level 0; most compare pairs of a query's documents.

scored_batch.py computes the scores and the loss of a formula over them. The other files contain the formulas.
"""
