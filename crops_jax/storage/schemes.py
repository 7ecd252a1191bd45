"""Recognises the paths that are not on a file system of this machine, such as gs://BUCKET/logs.

Python's Path takes such a text for a folder: Path("gs://b/records") is the folder records in b in "gs:" in the working
directory. So every argument that is a path is checked before a program begins.
"""

import re
from collections.abc import Iterable

from crops_jax.errors import InputError

_KNOWN = ("abfs", "abfss", "adl", "az", "file", "ftp", "gcs", "gs", "hdfs", "hf", "http", "https", "s3", "s3a", "s3n")
_SCHEME = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]+):(?=/)|(?P<known>{'|'.join(_KNOWN)}):", re.IGNORECASE)
_BUCKET = re.compile(r"(gs|s3)://[^/]+(/+[^/]+)*/*")
NOT_NAMES = ("", ".", "..")
"""The parts of a path that are the names of no file or folder."""
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and what Python makes of bytes that are not UTF-8."""
_NAME_BYTES = 255
"""The maximum length of a name of a file or folder on a disk, on which the local copy lies."""
_MOUNTS = {"gs": "with gcsfuse", "s3": "with mountpoint-s3"}
_ANY_MOUNT = "gs:// with gcsfuse, s3:// with mountpoint-s3"


def scheme_of(path: str) -> str | None:
    """Returns the scheme of a path in lower case; None for a path on a file system.

    A scheme ends with a colon and a slash, however many slashes there are, because gs:/b/logs is a misspelt bucket and
    no folder that anyone would name so. The common schemes are recognised without a slash too. Spaces and quotes before
    the scheme, which a shell script or a manifest of a cluster can leave there, do not hide it.
    """
    matched = _SCHEME.match(path.lstrip(" \t\r\n\"'"))
    return (matched["scheme"] or matched["known"]).lower() if matched else None


def is_bucket(path: str) -> bool:
    """Returns whether a path lies in a bucket that programs read and write: gs://BUCKET/... or s3://BUCKET/..."""
    return _BUCKET.fullmatch(path) is not None


def refuse_scheme(name: str, path: str, *, buckets: bool = False) -> None:
    """Raises InputError when a path has a scheme.

    Args:
      name: the argument for the message, such as --output.
      path: its value.
      buckets: whether gs://BUCKET/... and s3://BUCKET/... are taken.
    """
    if (scheme := scheme_of(path)) is None:
        return
    if buckets and is_bucket(path):
        _refuse_unusable_names(name, path)
        return
    if scheme == "file":
        raise InputError(f"{name} {path}: paths have no scheme; leave {path[:5]} and the slashes after it out")
    if buckets:
        raise InputError(
            f"{name} {path}: a path is on a file system of this machine, or it is gs://BUCKET/PATH or "
            f"s3://BUCKET/PATH; give one of these, or mount the bucket. A local folder of this very name is ./{path}"
        )
    raise InputError(
        f"{name} {path}: a path must be on a file system of this machine here, not behind {scheme}:; mount the bucket "
        f"({_MOUNTS.get(scheme, _ANY_MOUNT)}) and give the path below the mount, or give a local path. "
        f"A local folder of this very name is ./{path}"
    )


def _refuse_unusable_names(name: str, path: str) -> None:
    """Raises InputError when a path in a bucket has a name that a local copy of it cannot have.

    An object store takes `..` for a name like any other, and a disk takes it for the folder above.
    """
    for part in path.partition("://")[2].removesuffix("/").split("/"):
        if part in NOT_NAMES or _NO_TEXT.search(part) or len(part.encode(errors="replace")) > _NAME_BYTES:
            raise InputError(
                f"{name} {path!a}: {part!a} in it is not the name of a file or folder (it is empty, '.' or '..', has "
                f"control characters or bytes that are not UTF-8, or is longer than {_NAME_BYTES} bytes); correct the "
                "path"
            )


def refuse_schemes_in(words: Iterable[str], name: str) -> None:
    """Raises InputError when a word, or what follows the = in a word --FLAG=VALUE, has one of the common schemes.

    Args:
      words: flags for another program, whose paths are not known here. An address such as spark://HOST passes.
      name: the argument that holds the words, for the message.
    """
    for word in words:
        value = word.partition("=")[2] if word.startswith("--") else word
        if scheme_of(value) in _KNOWN:
            refuse_scheme(name, value)
