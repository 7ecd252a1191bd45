"""Where a directory came from, read from the manifests that each step carries along."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.manifest import MANIFEST, read_manifest


def manifest_or_none(path: str | Path) -> dict[str, Any] | None:
    """The manifest of a directory; None where it has none. Raises InputError when there is one that is broken."""
    return read_manifest(path) if (Path(path) / MANIFEST).is_file() else None


def chain(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A manifest, and those of everything that it goes back to."""
    yield manifest
    for described in manifest.get("inputs", {}).values():
        if "manifest" in described:
            yield from chain(described["manifest"])
