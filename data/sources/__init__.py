"""Adapters of public data sets: each module turns the published files of one data set into log tables.

Tables and columns that a source lacks, such as funnel stages or a feed, are left out; no values are invented.
"""
