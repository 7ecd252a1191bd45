"""Adapters of public data sets: one module each, from the files as they are published to log tables.

What a source lacks, such as funnel stages or a feed, stays absent; nothing is invented.
"""
