"""The paths that programs take: which arguments are paths, and which of them may lie in an object store."""

from crops_jax.storage.roles import InputPath, LocalPath, OtherFlags, OutputPath, Role

__all__ = ["InputPath", "LocalPath", "OtherFlags", "OutputPath", "Role"]
