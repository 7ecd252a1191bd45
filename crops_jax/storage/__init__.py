"""Paths of programs in buckets (gs://, s3://): inputs become verified local copies, outputs are published whole.

roles, arguments, schemes    which arguments are paths, and which paths are refused
staging, names               local paths for the program, and the paths of the user for messages
inputs, outputs              copies in the cache; uploads
remote                       a run that is trained in a bucket, and files that a copy leaves out
claims, marker               who writes a folder, and when it is whole
objects                      the objects of a bucket, over fsspec
"""

from crops_jax.storage.roles import (
    InputPath,
    LocalPath,
    OtherFlags,
    OutputPath,
    RecordsPath,
    ResumedPath,
    Role,
    RunPath,
    StatePath,
)

__all__ = [
    "InputPath",
    "LocalPath",
    "OtherFlags",
    "OutputPath",
    "RecordsPath",
    "ResumedPath",
    "Role",
    "RunPath",
    "StatePath",
]
