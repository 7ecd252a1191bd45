"""Paths of programs in buckets (gs://, s3://): inputs become verified local copies, outputs are published whole.

roles, arguments, schemes    which arguments are paths, and which paths are refused
staging, names               local paths for the program, and the paths of the user for messages
inputs, outputs, marker      copies in the cache; claim, upload and commit marker
remote_files                 the files that a copy leaves out, which are read by ranges
object_store                 the objects of a bucket, over fsspec
"""

from crops_jax.storage.roles import InputPath, LocalPath, OtherFlags, OutputPath, RecordsPath, ResumedPath, Role

__all__ = ["InputPath", "LocalPath", "OtherFlags", "OutputPath", "RecordsPath", "ResumedPath", "Role"]
