"""The directories that programs write. They appear whole, hold a manifest of their origin, and can be locked."""

from crops_jax.artifacts.atomic import appears_whole, remove_temporaries, replaced_file, write_text
from crops_jax.artifacts.manifest import (
    MANIFEST,
    content_fingerprint,
    describe_input,
    fingerprint,
    new_manifest,
    read_manifest,
    write_manifest,
)
from crops_jax.artifacts.output import check_output, output_directory

__all__ = [
    "MANIFEST",
    "appears_whole",
    "check_output",
    "content_fingerprint",
    "describe_input",
    "fingerprint",
    "new_manifest",
    "output_directory",
    "read_manifest",
    "remove_temporaries",
    "replaced_file",
    "write_manifest",
    "write_text",
]
