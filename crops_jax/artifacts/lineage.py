"""The origin of a directory, read from the manifests that each step carries along.

A manifest keeps, of each input, its fingerprint and, where it has one, its manifest. Here alone they are followed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.manifest import MANIFEST, read_manifest

Manifest = Mapping[str, Any]


def manifest_or_none(path: str | Path) -> dict[str, Any] | None:
    """The manifest of a directory; None where it has none. Raises InputError when there is one that is broken."""
    return read_manifest(path) if (Path(path) / MANIFEST).is_file() else None


def input_manifest(manifest: Manifest | None, name: str) -> Manifest | None:
    """The manifest of an input; None where there is no such input, or where it had none."""
    return manifest["inputs"].get(name, {}).get("manifest") if manifest else None


def input_fingerprint(manifest: Manifest | None, name: str) -> str | None:
    """The fingerprint of an input; None where there is no such input."""
    return manifest["inputs"].get(name, {}).get("fingerprint") if manifest else None


def chain(manifest: Manifest | None) -> Iterator[Manifest]:
    """A manifest, and those of everything that it goes back to."""
    if manifest:
        yield manifest
        for name in manifest["inputs"]:
            yield from chain(input_manifest(manifest, name))


def line(manifest: Manifest | None, name: str) -> Iterator[Manifest]:
    """A manifest, that of its input `name`, that of the same input of this one, and so on.

    So launch.mine_negatives makes labels from labels, and their line ends with data.mine.
    """
    while manifest:
        yield manifest
        manifest = input_manifest(manifest, name)


def read_from(labels: Manifest | None, name: str) -> tuple[str, Manifest | None] | None:
    """Fingerprint and manifest of an input of the mining that labels, or those that they were made from, go back to.

    None where no manifest tells of such an input.
    """
    for link in line(labels, "labels"):
        if fingerprint := input_fingerprint(link, name):
            return fingerprint, input_manifest(link, name)
    return None
