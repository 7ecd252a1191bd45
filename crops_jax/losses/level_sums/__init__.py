"""The sums over [queries, docs] that every loss needs: scores of the named pairs, and each query's sum over level 0.

api.py is the operation, dense.py its reference, streaming.py the one that never holds the matrix.
"""
