"""Publishes an output in a bucket: a folder appears whole, with its marker, or not at all.

Object stores have no renames and no locks. So a writer claims the folder by a conditional put, removes the marker of
what it replaces, uploads the files, compares the listing with them, and writes the marker last. Whatever stops it,
readers find a marker whose files are all there, or a claim without a marker, which they refuse.

A writer whose claim another one has taken over (crops_jax.storage.claims) finds that its claim is not the last one and
ends without a marker. What it wrote over files of the other shows in their SHA-256, which every reader compares.
"""

from collections.abc import Collection
from pathlib import Path

from crops_jax.artifacts.manifest import MANIFEST
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage import claims
from crops_jax.storage.marker import MARKER, Content, content_of, data_files, marker_text, read_marker
from crops_jax.storage.objects.parallel import in_parallel
from crops_jax.storage.objects.store import Entry, ObjectStore

_ROUNDS = 3
"""The number of times that files which the listing does not show are uploaded."""


def publish_file(file: Path, store: ObjectStore, seen: dict[str, Entry]) -> None:
    """Uploads a file, which a bucket shows whole or not at all.

    Raises InputError when another process wrote the object since `seen` was listed.
    """
    if store.listing() != seen:
        raise _written_meanwhile(store)
    if seen:
        store.upload("", file)
    elif not store.create("", file.read_bytes()):
        raise _written_meanwhile(store)
    if (entry := store.listing().get("")) is None or entry.size != file.stat().st_size:
        raise _lost(store, "")


def is_published(folder: Path, store: ObjectStore, seen: dict[str, Entry]) -> bool:
    """Returns whether the marker in the bucket names these very files. The objects themselves are not read."""
    return MARKER in seen and read_marker(store) == {name: content_of(file) for name, file in _files(folder).items()}


def publish_folder(folder: Path, store: ObjectStore, seen: dict[str, Entry]) -> None:
    """Uploads a folder and writes its marker last.

    Args:
      folder: the local folder.
      store: the path in the bucket. What is there is replaced.
      seen: the listing of the path when the program began.

    Raises:
      InputError: another process is publishing there, or has published since `seen` was listed.
      NamedFailure: the server lost files again and again.
    """
    paths = _files(folder)
    claim = claims.take(store)
    now = store.listing()
    if data_files(now) != data_files(seen) or now.get(MARKER) != seen.get(MARKER):
        store.remove([claim.name])
        raise _written_meanwhile(store)
    with claims.renewed(store, claim):
        # Old files are removed even where new ones follow, so that the listing shows a write that was lost.
        _remove(store, [*({MARKER} & now.keys()), *data_files(now)])
        contents = upload_files(store, paths)
    if not claims.is_last(store, claim.number) or not store.create(MARKER, marker_text(contents)):
        raise _written_meanwhile(store)
    claims.release(store, claim)


def remove_published(store: ObjectStore, seen: dict[str, Entry]) -> None:
    """Removes all objects of a path in the bucket, the marker first.

    Raises InputError when another process wrote there since `seen` was listed.
    """
    if store.listing() != seen:
        raise _written_meanwhile(store)
    _remove(store, seen)


def _remove(store: ObjectStore, names: Collection[str]) -> None:
    """Removes objects of a folder, what tells that it is whole first."""
    telling = [name for name in (MARKER, MANIFEST) if name in names]
    store.remove([*telling, *(name for name in names if name not in telling)])


def _files(folder: Path) -> dict[str, Path]:
    """Returns the files of a folder by their names in the bucket, without locks and other hidden files at its top."""
    return {name: file for name, file in files_below(folder).items() if not name.startswith(".")}


def files_below(folder: Path) -> dict[str, Path]:
    """Returns all files of a folder by their paths in it, with slashes, in their order."""
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}


def upload_files(store: ObjectStore, paths: dict[str, Path], *, replaces: bool = True) -> dict[str, Content]:
    """Uploads files, the manifest last, until the listing has all of them, and returns what they hold.

    Args:
      store: the folder in the bucket.
      paths: the local files by their names in the folder.
      replaces: whether objects that are there are replaced. If not, FileExistsError is raised when one has other bytes.

    Raises NamedFailure when the server lost files again and again.
    """

    def upload(name: str) -> None:
        store.upload(name, paths[name], replaces=replaces)

    contents = dict(zip(paths, in_parallel(content_of, paths.values()), strict=True))
    missing = list(paths)
    for _ in range(_ROUNDS):
        in_parallel(upload, [name for name in missing if name != MANIFEST])
        if MANIFEST in missing:
            upload(MANIFEST)
        listing = store.listing()
        missing = [name for name, one in contents.items() if name not in listing or listing[name].size != one.size]
        if not missing:
            return contents
    raise _lost(store, missing[0])


def _written_meanwhile(store: ObjectStore) -> InputError:
    return InputError(
        f"{store.url} was written by another process in the meantime, so it is not replaced; use it, or choose another "
        "output"
    )


def _lost(store: ObjectStore, name: str) -> NamedFailure:
    return NamedFailure(
        f"{store.url}/{name}: the server took the file and does not list it; call the same command again"
    )
