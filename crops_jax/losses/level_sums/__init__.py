"""The numbers that every loss needs from the scores [queries, docs]: scores of the named pairs, and sums over level 0.

Named pairs are the pairs whose level is not 0. api.py is the operation, dense.py is its reference implementation, and
streaming.py is the implementation that never stores the score matrix.
"""
