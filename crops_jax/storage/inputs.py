"""Local copies of inputs in buckets. A copy is whole and verified, or there is none.

    CROPS_CACHE/inputs/KEY/NAME        the copy; KEY follows from the path and from the version of every object

The key changes when an object changes, so a copy is never out of date. Copies may be removed whenever no program runs.
A copy of records can leave their shards out (crops_jax.storage.remote.files); they are added when they are wanted.

A run that a program trains in the bucket can be copied while it is written. Each of its checkpoints is a published
folder with a copy of its own, to which the copy of the run has links.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from crops_jax.artifacts.atomic import appears_whole
from crops_jax.artifacts.lock import exclusive
from crops_jax.artifacts.manifest import MANIFEST, content_fingerprint, read_manifest
from crops_jax.errors import InputError, NamedFailure, is_full_disk, one_line
from crops_jax.storage.marker import MARKER, RUN_MARKER, Content, claims, content_of, data_files, read_marker
from crops_jax.storage.objects.parallel import in_parallel
from crops_jax.storage.objects.store import Entry, ObjectStore
from crops_jax.storage.remote.files import RemoteFiles, note_path
from crops_jax.storage.schemes import NOT_NAMES, scheme_of

_CHECKED_BY_READERS = {"run", "embeddings", "discriminator"}
"""The kinds of folders whose fingerprint is not that of their bytes. Their checkpoints and shards have checksums."""
NEVER_READ = ("compilation_cache", "tensorboard")
"""Folders of a run that no program reads again elsewhere."""
_SHARD = re.compile(r"[^/]+\.tfrecord-\d{5}-of-\d{5}")
"""The names of shards of records, as tensorflow_datasets gives them."""
SMALL_BYTES = 1 << 30
"""The size of shards in bytes up to which they are copied unless the user decides otherwise."""
CHECKPOINTS = "checkpoints"
"""The folder of a run that has a folder for each checkpoint, named after its step."""
_PROGRESS = "progress"
"""The folder of a checkpoint that is not arrays."""
_DAY_SECONDS = 86_400.0
_ROUNDS = 5
"""The number of times that a run is read again which changed while it was read."""


class _Changed(Exception):
    """A run was written while it was read."""


def cache_folder(*parts: str) -> Path:
    """Returns the folder of local copies, or a folder in it, and makes it: CROPS_CACHE, by default ~/.cache/crops_jax.

    Raises InputError when it cannot be made.
    """
    named = os.environ.get("CROPS_CACHE")
    remedy = "set CROPS_CACHE to a local folder that can be written"
    if named and scheme_of(named) is not None:
        raise InputError(f"CROPS_CACHE {named}: local copies cannot lie behind a scheme; {remedy}")
    try:
        root = (
            Path(named).expanduser()
            if named
            else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "crops_jax")
        )
        folder = root.absolute().joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except (
        RuntimeError
    ) as error:  # of Path.home and expanduser, where neither HOME nor the list of users names a folder
        raise InputError(f"there is no folder for local copies ({one_line(error)}); {remedy}") from error
    except OSError as error:
        if is_full_disk(error):
            raise
        raise InputError(f"{error.filename} cannot hold local copies ({error.strerror}); {remedy}") from error
    return folder


def local_copy(url: str, *, shards: bool = True, arrays: bool = True) -> Path:
    """Returns a verified local copy of a file or folder in a bucket, and makes it unless there is one.

    Raises InputError when there is nothing at the path, when a program has not finished writing it, or when its bytes
    are not those that were published.

    Args:
      url: gs://BUCKET/PATH or s3://BUCKET/PATH.
      shards: whether a copy of records has their shards. If not, they are left out unless they are there already, and
        RemoteFiles.of(copy) reads them.
      arrays: whether the copy of a run of launch.train has the arrays of its checkpoints. launch.status needs none.
        That of launch.train_discriminator never has them: its weights are a file of the finished run.
    """
    store = ObjectStore(url)
    listing = store.listing()
    if not listing:
        raise InputError(f"{url}: no such file or folder in the bucket; check the path")
    if RUN_MARKER in listing:
        return _copy_of_run(store, listing, arrays=arrays and _has_weights_in_checkpoints(store))
    refuse_unfinished(store, listing)
    known = read_marker(store) if MARKER in listing else {}
    wanted = _wanted(store, listing, known)
    with _made_once(store, wanted) as copy:
        folder = copy.parent
        remote = RemoteFiles.of(copy)
        left_out = {} if remote is None else remote.entries
        if not _is_whole(copy, _without(left_out, wanted)):
            left_out = {} if shards else {name: entry for name, entry in wanted.items() if _SHARD.fullmatch(name)}
            shutil.rmtree(folder, ignore_errors=True)
            with appears_whole(folder) as temporary:
                _download(store, _without(left_out, wanted), known, temporary / copy.name)
                if left_out:
                    RemoteFiles(store.url, left_out).write(temporary / copy.name)
                _check_copy(store, wanted, known, temporary / copy.name, is_whole=not left_out)
        elif shards and left_out:
            _download(store, left_out, known, copy)
            _check_copy(store, wanted, known, copy, is_whole=True)
            note_path(copy).unlink()
    return copy


def copy_shards(copy: Path | str, cache: str) -> RemoteFiles | None:
    """Adds the shards to a local copy of records that leaves them out, and returns those that stay in the bucket.

    It returns None when the copy, or any other folder, has all its shards. Raises InputError as `local_copy` does.

    Args:
      copy: the folder of records.
      cache: "shards" to copy them, "off" to leave them, and "auto" to copy at most SMALL_BYTES.
    """
    remote = RemoteFiles.of(Path(copy))
    if remote is None or cache == "off" or (cache == "auto" and remote.total_bytes > SMALL_BYTES):
        return remote
    local_copy(remote.url)
    return RemoteFiles.of(Path(copy))


def download_published(store: ObjectStore, folder: Path) -> None:
    """Writes the files of a published folder to a new local folder. Raises InputError as `local_copy`."""
    known = read_marker(store)
    _download(store, _wanted(store, store.listing(), known), known, folder)


def whole_checkpoints(listing: Iterable[str]) -> list[int]:
    """Returns the steps of the whole checkpoints among the names of the objects of a run, in ascending order."""
    parts = [name.split("/") for name in listing]
    return sorted(int(part[1]) for part in parts if part[0] == CHECKPOINTS and part[2:] == [MARKER])


def small_files(listing: Mapping[str, Entry]) -> dict[str, Entry]:
    """Returns the objects of a run that are files of its local folder, without checkpoints and caches."""
    left_out = (CHECKPOINTS, *NEVER_READ)
    return {name: entry for name, entry in data_files(dict(listing)).items() if name.split("/")[0] not in left_out}


def read_small_files(store: ObjectStore, listing: Mapping[str, Entry], folder: Path) -> None:
    """Writes the small files of a run to a local folder.

    Raises InputError when one that never changes is damaged.
    """
    known = read_marker(store, RUN_MARKER)

    def get(name: str) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.read(name))
        if name in known and content_of(file) != known[name]:
            raise _damaged(store, name)

    if missing := known.keys() - listing.keys():
        raise _damaged(store, min(missing))
    names = small_files(listing)
    _refuse_unusable_names(store, names)
    in_parallel(get, names)


def _copy_of_run(store: ObjectStore, listing: dict[str, Entry], *, arrays: bool) -> Path:
    for _ in range(_ROUNDS):
        markers = {name: entry for name, entry in listing.items() if name.endswith(f"/{MARKER}")}
        seen = {**small_files(listing), **markers, f"arrays: {arrays}": Entry(0, "")}
        with _made_once(store, seen) as copy:
            steps = copy / CHECKPOINTS
            if copy.is_dir() and all((steps / str(step)).is_dir() for step in whole_checkpoints(listing)):
                return copy
            shutil.rmtree(copy.parent, ignore_errors=True)
            with contextlib.suppress(_Changed), appears_whole(copy.parent) as temporary:
                _read_run(store, listing, temporary / copy.name, arrays=arrays)
            if copy.is_dir():
                return copy
        listing = store.listing()
    raise NamedFailure(f"{store.url} changes while it is read; call the same command again")


def _has_weights_in_checkpoints(store: ObjectStore) -> bool:
    """Returns whether programs read the checkpoints of a run, as they do not read those of a discriminator."""
    try:
        return json.loads(store.read(MANIFEST))["kind"] == "run"
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise _damaged(store, MANIFEST) from error


def _read_run(store: ObjectStore, listing: dict[str, Entry], copy: Path, *, arrays: bool) -> None:
    """Writes a copy of a run. Raises _Changed when it was written meanwhile in a way that the copy cannot have."""
    steps = whole_checkpoints(listing)
    (copy / CHECKPOINTS).mkdir(parents=True)
    for step in steps:
        place = copy / CHECKPOINTS / str(step)
        folder = ObjectStore(f"{store.url}/{CHECKPOINTS}/{step}")
        try:
            if arrays:
                place.symlink_to(local_copy(folder.url), target_is_directory=True)
            else:
                known = {name: one for name, one in read_marker(folder).items() if name.startswith(f"{_PROGRESS}/")}
                _download(folder, _wanted(folder, folder.listing(), known), known, place)
        except InputError as error:
            if MARKER in folder.listing():
                raise
            raise _Changed from error  # the run no longer keeps this checkpoint
    try:
        read_small_files(store, listing, copy)
    except FileNotFoundError as error:
        raise _Changed from error
    now = store.listing()
    for name, before in small_files(listing).items():
        after = now.get(name, before)
        if (copy / name).stat().st_size not in (before.size, after.size):
            raise _Changed


@contextlib.contextmanager
def _made_once(store: ObjectStore, wanted: Mapping[str, Entry]) -> Iterator[Path]:
    """Yields the path of a copy of objects, which this process alone uses until the block ends.

    Several processes of one machine need the same copy, and one of them makes it.
    """
    key = hashlib.sha256(json.dumps([store.url, sorted(wanted.items())]).encode()).hexdigest()[:20]
    folder = cache_folder("inputs") / key
    refusal = f"another process has been copying {store.url} for a day; stop it"
    with exclusive(folder.with_suffix(".lock"), refusal=refusal, patience_seconds=_DAY_SECONDS):
        yield folder / store.url.rpartition("/")[2]


def refuse_unfinished(store: ObjectStore, listing: Mapping[str, Entry]) -> None:
    """Raises InputError when a folder, or one that it lies in, was claimed by a writer and not published."""
    if MARKER in listing:
        return
    if claims(listing):
        raise _unfinished(store.url)
    scheme, _, path = store.url.partition("://")
    parts = path.split("/")
    for length in range(len(parts) - 1, 1, -1):
        above = ObjectStore(f"{scheme}://{'/'.join(parts[:length])}")
        names: list[str] = []
        with contextlib.suppress(InputError):  # the user can have access to the folder alone
            names = above.names_here()
        if claims(names) and not {MARKER, RUN_MARKER} & set(names):
            raise _unfinished(above.url)


def _unfinished(url: str) -> InputError:
    return InputError(
        f"{url} is not whole: a program is publishing it, or was stopped while it did; wait, or write it again"
    )


def _wanted(store: ObjectStore, listing: dict[str, Entry], known: Mapping[str, Content]) -> dict[str, Entry]:
    """Returns the objects to copy. Raises InputError when one of a published folder is missing or has another size."""
    if not known:
        return {name: entry for name, entry in data_files(listing).items() if name.split("/")[0] not in NEVER_READ}
    for name, content in known.items():
        if name not in listing or listing[name].size != content.size:
            raise _damaged(store, name)
    return {name: listing[name] for name in known if name.split("/")[0] not in NEVER_READ}


def _damaged(store: ObjectStore, name: str) -> InputError:
    return InputError(
        f"{store.url}/{name} is not the file that was published: it is missing, or was replaced or damaged; write "
        f"{store.url} again"
    )


def _without(names: Container[str], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in entries.items() if name not in names}


def _refuse_unusable_names(store: ObjectStore, names: Iterable[str]) -> None:
    """Raises InputError when an object cannot be a file of a copy: `../x` would lie outside of it."""
    names = [name for name in names if name]
    folders = {name[: slash.start()] for name in names for slash in re.finditer("/", name)}
    for name in names:
        if not set(NOT_NAMES).isdisjoint(name.split("/")) or name in folders:
            raise InputError(
                f"{store.url}/{name}: an object of this name cannot be a file on a disk (a part of it is empty, '.' or "
                "'..', or other objects lie below it as if it were a folder); rename or remove it"
            )


def _is_whole(copy: Path, wanted: Mapping[str, Entry]) -> bool:
    files = {name: copy / name if name else copy for name in wanted}
    return all(file.is_file() and file.stat().st_size == wanted[name].size for name, file in files.items())


def _download(store: ObjectStore, wanted: Mapping[str, Entry], known: Mapping[str, Content], copy: Path) -> None:
    def get(name: str) -> None:
        file = copy / name if name else copy
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(name, file, size=wanted[name].size)
        except FileNotFoundError as error:
            raise _damaged(store, name) from error
        if name in known and content_of(file) != known[name]:
            raise _damaged(store, name)

    _refuse_unusable_names(store, wanted)
    in_parallel(get, wanted)


def _check_copy(
    store: ObjectStore, wanted: Mapping[str, Entry], known: Mapping[str, Content], copy: Path, *, is_whole: bool
) -> None:
    """Raises InputError when a folder that another tool copied changed meanwhile, or is not what its manifest says."""
    if known:  # each file has been compared with the marker
        return
    now = store.listing()
    if any(now.get(name) != entry for name, entry in wanted.items()):
        raise InputError(f"{store.url} was changed while it was read; call the same command again")
    if not is_whole or not (copy / MANIFEST).is_file():
        return
    manifest = read_manifest(copy)
    if manifest["kind"] not in _CHECKED_BY_READERS and content_fingerprint(copy) != manifest["fingerprint"]:
        raise InputError(
            f"{store.url} is not whole: its files are not those of its {MANIFEST}; copy it again, or write it with a "
            "program of crops_jax"
        )
