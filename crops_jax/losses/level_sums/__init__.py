"""What every loss needs of [queries, docs]: scores of the named pairs, and for each query the sum over level 0.

api.py is the operation, dense.py its reference, streaming.py the one that never holds the matrix.
"""
