"""Runs that are trained in a bucket, and files of a bucket that are read and not copied.

run          a run that is trained: its claim, and its small files, which are kept up to date
checkpoints  the checkpoints of such a run, uploaded by a thread
files        the files that a copy leaves out, which are read by ranges
"""
