"""The objects of a bucket, over the file systems s3fs and gcsfs.

store       the objects below one path: list, read, write, create once, remove
clients     the file systems, and ranges of one version of an object
attempts    calls made again, and what each error says to the user
parallel    several calls at the same time
"""
