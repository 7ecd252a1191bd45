"""The origin of a directory, read from its manifest and the manifests of its inputs.

A manifest keeps the fingerprint of each input, and the manifest of each input that has one. Only this module follows
them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.manifest import MANIFEST, read_manifest

Manifest = Mapping[str, Any]


def manifest_or_none(path: str | Path) -> dict[str, Any] | None:
    """Returns the manifest of a directory; None when it has none. Raises InputError when the manifest is damaged."""
    return read_manifest(path) if (Path(path) / MANIFEST).is_file() else None


def input_manifest(manifest: Manifest | None, name: str) -> Manifest | None:
    """Returns the manifest of an input; None when the input is missing or has no manifest."""
    return manifest["inputs"].get(name, {}).get("manifest") if manifest else None


def input_fingerprint(manifest: Manifest | None, name: str) -> str | None:
    """Returns the fingerprint of an input; None when the input is missing."""
    return manifest["inputs"].get(name, {}).get("fingerprint") if manifest else None


def chain(manifest: Manifest | None) -> Iterator[Manifest]:
    """Yields a manifest and the manifests of all its inputs, of their inputs, and so on."""
    if manifest:
        yield manifest
        for name in manifest["inputs"]:
            yield from chain(input_manifest(manifest, name))


def line(manifest: Manifest | None, name: str) -> Iterator[Manifest]:
    """Yields a manifest, the manifest of its input `name`, the manifest of the input `name` of that input, and so on.

    launch.mine_negatives makes labels from labels, so the line of its labels ends with the labels of data.mine.
    """
    while manifest:
        yield manifest
        manifest = input_manifest(manifest, name)


def read_from(labels: Manifest | None, name: str) -> tuple[str, Manifest | None] | None:
    """Returns the fingerprint and the manifest of an input `name` of labels, or of the labels that they were made from.

    When several of them have such an input, the nearest one decides. Returns None when no manifest has one.
    """
    for link in line(labels, "labels"):
        if fingerprint := input_fingerprint(link, name):
            return fingerprint, input_manifest(link, name)
    return None
