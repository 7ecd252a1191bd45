"""Lets a program work on local paths when its arguments are paths in buckets.

An input becomes a verified local copy; that of records lacks their shards until they are wanted. A run that is trained
is a local folder which crops_jax.storage.remote.run keeps like the one in the bucket. Any other output is written to
CROPS_CACHE/outputs/KEY/NAME, which one process at a time uses, and published when the program has ended well. What is
in the bucket already stands there as its manifest, so that the program refuses or replaces it as it would a local
folder. What the program leaves as it stood is not published.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crops_jax.errors import InputError
from crops_jax.storage import names
from crops_jax.storage.arguments import PathArgument, path_arguments, with_paths
from crops_jax.storage.roles import Role
from crops_jax.storage.schemes import is_bucket

if typing.TYPE_CHECKING:
    from crops_jax.storage.objects.store import Entry, ObjectStore

_READ = (Role.INPUT, Role.RECORDS, Role.STATE)
"""The roles of paths that a program only reads."""
_BESIDE = (".quarantine",)
"""The endings of the names of folders that a program writes beside its output, and that are published with it."""


class _Output(typing.NamedTuple):
    """One path in a bucket that a program can write."""

    store: "ObjectStore"
    seen: "dict[str, Entry]"
    """The listing of the path when the program began."""
    local: Path
    """The path that the program writes."""
    stand_in: "dict[str, tuple[int, int]] | None" = None
    """The files (see `_files`) that stood there for those in the bucket; None: what an earlier call wrote."""
    is_copy: bool = False
    """Whether the local path began as a verified copy of what the path in the bucket holds."""


@contextlib.contextmanager
def staged(arguments: Any) -> Iterator[Any]:
    """Yields the arguments of a program with local paths, and publishes the outputs when the block ends well.

    `crops_jax.storage.names.shown` then gives the paths of the user back. Arguments without a path in a bucket are
    yielded unchanged.

    Raises InputError or NamedFailure as crops_jax.storage.inputs and crops_jax.storage.outputs say.
    """
    remote = [one for one in path_arguments(arguments) if one.role is not Role.FLAGS and is_bucket(one.value)]
    if not remote:
        yield arguments
        return
    from crops_jax.storage.inputs import local_copy
    from crops_jax.storage.objects.store import ObjectStore
    from crops_jax.storage.remote import run as remote_run

    _refuse_overlaps(remote)
    outputs: list[_Output] = []
    with contextlib.ExitStack() as stack:

        def local(argument: PathArgument) -> str:
            if argument not in remote:
                return argument.value
            url = argument.value.rstrip("/")
            if argument.role in _READ:
                path = local_copy(url, shards=argument.role is not Role.RECORDS, arrays=argument.role is not Role.STATE)
            elif argument.role is Role.RUN:
                path = stack.enter_context(_run_folder(url)) / url.rpartition("/")[2]
                stack.enter_context(remote_run.known(path, url))
            else:
                path = stack.enter_context(_output_folder(url)) / url.rpartition("/")[2]
                # What is replaced is not read, for it can be damaged.
                is_resumed = argument.role is Role.RESUMED and not getattr(arguments, "overwrite", False)
                outputs.append(_open_output(ObjectStore(url), path, is_resumed=is_resumed))
            for ending in _BESIDE if argument.role not in _READ else ():
                beside = path.with_name(path.name + ending)
                outputs.append(_open_output(ObjectStore(url + ending), beside, is_resumed=False))
            names.remember(str(path), url)
            return str(path)

        yield with_paths(arguments, local)
        for output in reversed(outputs):  # what is beside the output comes first
            _publish(output)
        for output in outputs:
            _remove(output.local)


def _refuse_overlaps(remote: list[PathArgument]) -> None:
    """Raises InputError when an output is, holds or lies in an input, or has no path in its bucket."""
    for output in (one for one in remote if one.role not in _READ):
        written = f"{output.value.rstrip('/')}/"
        if written.count("/") < 4:
            raise InputError(f"{output.flag} {output.value} is a whole bucket; give a path in it")
        for other in remote:
            read = f"{other.value.rstrip('/')}/"
            if other is not output and (read.startswith(written) or written.startswith(read)):
                raise InputError(
                    f"{output.flag} {output.value} and {other.flag} {other.value} overlap; choose another output"
                )


@contextlib.contextmanager
def _output_folder(url: str) -> Iterator[Path]:
    """Yields the local folder for an output in a bucket, which this process alone uses until the block ends."""
    from crops_jax.artifacts.lock import exclusive
    from crops_jax.devices.cluster_environment import membership
    from crops_jax.storage.inputs import cache_folder

    cluster = membership(os.environ, looks_for_tpu=lambda: False)
    if cluster is not None and cluster.get("num_processes") != 1:
        raise InputError(
            f"{url}: several processes write one output on a file system that all of them see; give such a path, and "
            "copy the result to the bucket"
        )
    folder = cache_folder("outputs", hashlib.sha256(url.encode()).hexdigest()[:20])
    refusal = f"another process of this machine writes {url}; wait until it ends, or stop it"
    with exclusive(folder / ".lock", refusal=refusal):
        yield folder


@contextlib.contextmanager
def _run_folder(url: str) -> Iterator[Path]:
    """Yields the local folder for a run in a bucket, which this process alone uses until the block ends.

    The processes of a cluster that run on one machine have one each, in which compiled programs stay.
    """
    from crops_jax.artifacts.lock import LOCK, exclusive
    from crops_jax.storage.inputs import cache_folder

    runs = cache_folder("runs", hashlib.sha256(url.encode()).hexdigest()[:20])
    with contextlib.ExitStack() as stack:
        for number in itertools.count():
            folder = runs / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(InputError):
                stack.enter_context(exclusive(folder / LOCK, refusal=f"{folder} is used"))
                break
        yield folder


def _open_output(store: "ObjectStore", local: Path, *, is_resumed: bool) -> _Output:
    """Makes the local path look like what is in the bucket.

    Args:
      store: the path in the bucket.
      local: the path that the program writes.
      is_resumed: whether the program continues what an earlier call wrote. It then finds all that was published, or
        what a call that was stopped on this machine left.
    """
    from crops_jax.artifacts.manifest import MANIFEST
    from crops_jax.storage.claims import refuse_claimed
    from crops_jax.storage.inputs import local_copy
    from crops_jax.storage.marker import MARKER, RUN_MARKER, claims, data_files

    seen = store.listing()
    refuse_claimed(store, seen)
    files = data_files(seen)
    if is_resumed and not {MARKER, RUN_MARKER} & seen.keys() and (claims(seen) or not files):
        return _Output(store, seen, local)
    _remove(local)
    if is_resumed and MARKER in seen:
        shutil.copytree(local_copy(store.url), local)
        return _Output(store, seen, local, is_copy=True)
    if "" in files:
        store.download("", local, size=files[""].size)
    elif MANIFEST in files and (MARKER in seen or RUN_MARKER in seen or not claims(seen)):
        local.mkdir()
        store.download(MANIFEST, local / MANIFEST, size=files[MANIFEST].size)
    elif files and not claims(seen):
        local.mkdir()
        (local / next(iter(files)).rpartition("/")[2]).touch()  # a file of others, which no program replaces
    return _Output(store, seen, local, stand_in=_files(local))


def _files(path: Path) -> dict[str, tuple[int, int]]:
    """Returns the inode and the time of change of a file, or of each file of a folder; empty when there is none."""
    from crops_jax.storage.outputs import files_below

    files = {"": path} if path.is_file() else files_below(path)
    return {name: (file.stat().st_ino, file.stat().st_mtime_ns) for name, file in files.items()}


def _publish(output: _Output) -> None:
    """Publishes what a program has written, and removes from the bucket what it has removed.

    A stand-in that it left as it was would replace the files in the bucket.
    """
    from crops_jax.storage.outputs import is_published, publish_file, publish_folder, remove_published

    if _files(output.local) == output.stand_in:
        return
    if output.local.is_dir():
        # A marker alone does not say that the objects are what it names, and damaged ones can be written again.
        if not (output.is_copy and is_published(output.local, output.store, output.seen)):
            publish_folder(output.local, output.store, output.seen)
    elif output.local.is_file():
        publish_file(output.local, output.store, output.seen)
    elif output.stand_in:
        remove_published(output.store, output.seen)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
