"""The commit marker of a folder in a bucket. What programs of crops_jax write there is whole only if it has one.

    _COMMITTED        JSON: size and SHA-256 of every file of the folder. It is written last, and removed first.
    _CLAIM-000001     the present writer of the folder: host and process. It is created by a conditional put.
    _RUN              marks a run of launch.train or launch.train_discriminator, which can be read while it is written:
                      its small files are there, and each of its checkpoints is a folder with a marker. JSON as in
                      _COMMITTED, for the files that never change again.
    _PART-000001      in the folder of a checkpoint that is being written: the files that process 1 has uploaded.

Spark, DuckDB and TensorFlow leave out files whose names begin with an underscore, and so do local copies.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from crops_jax.errors import InputError
from crops_jax.storage.objects.store import Entry, ObjectStore

MARKER = "_COMMITTED"
RUN_MARKER = "_RUN"
_CLAIM = re.compile(r"_CLAIM-(\d{6})")


class Content(NamedTuple):
    """The bytes of a file of a published folder, as its marker describes them."""

    size: int
    """The number of bytes."""
    sha256: str
    """The SHA-256 of the bytes, as hexadecimal digits."""


def content_of(file: Path) -> Content:
    """Returns the content of a local file."""
    with open(file, "rb") as opened:
        return Content(file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest())


def marker_text(files: dict[str, Content]) -> bytes:
    """Returns the text of the marker of a folder with these files."""
    listed = {name: content._asdict() for name, content in sorted(files.items())}
    return (json.dumps({"files": listed}, indent=1) + "\n").encode()


def read_marker(store: ObjectStore, name: str = MARKER) -> dict[str, Content]:
    """Returns the files of a published folder. Raises InputError when the marker cannot be read.

    Args:
      store: the folder.
      name: the object, which can be another one that `marker_text` made.
    """
    try:
        stored = json.loads(store.read(name))["files"]
        return {str(name): Content(int(one["size"]), str(one["sha256"])) for name, one in stored.items()}
    except FileNotFoundError as error:
        raise InputError(f"{store.url} is being replaced by a program; call the same command again later") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{store.url}/{name}: not a marker of crops_jax ({error}); write the folder again") from error


def claim_name(number: int) -> str:
    """Returns the name of the object by which writer `number` claims a folder."""
    return f"_CLAIM-{number:06}"


def claims(names: Iterable[str]) -> list[int]:
    """Returns the numbers of the claims among names of objects, in ascending order."""
    return sorted(int(matched[1]) for name in names if (matched := _CLAIM.fullmatch(name)))


def part_name(process: int) -> str:
    """Returns the name of the object that names the files of a checkpoint that a process has uploaded."""
    return f"_PART-{process:06}"


def data_files(listing: dict[str, Entry]) -> dict[str, Entry]:
    """Returns the objects of a listing without the markers and the claims."""
    markers = (MARKER, RUN_MARKER)
    return {name: entry for name, entry in listing.items() if name not in markers and not _CLAIM.fullmatch(name)}
