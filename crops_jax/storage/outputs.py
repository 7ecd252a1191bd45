"""Publishes an output in a bucket: a folder appears whole, with its marker, or not at all.

Object stores have no renames and no locks. So a writer claims the folder by a conditional put, removes the marker of
what it replaces, uploads the files, compares the listing with them, and writes the marker last. Whatever stops it,
readers find a marker whose files are all there, or a claim without a marker, which they refuse.

Claims are numbered. A claim that is not renewed for some minutes belongs to a writer that was killed, and the next
writer takes the next number. If the first one goes on after all, it finds that its claim is not the last one and ends
without a marker. What it wrote over files of the other shows in their SHA-256, which every reader compares.
"""

import concurrent.futures
import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crops_jax.artifacts.manifest import MANIFEST
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage.inputs import THREADS
from crops_jax.storage.marker import (
    MARKER,
    Content,
    claim_name,
    claims,
    content_of,
    data_files,
    marker_text,
    read_marker,
)
from crops_jax.storage.object_store import Entry, ObjectStore

STALE_SECONDS = 600.0
"""The age at which a claim that nobody renews is one of a writer that was killed."""
_RENEWAL_SECONDS = 60.0
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
    """Returns whether the bucket has these very files already, with their marker."""
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
    number, text = _claim(store)
    now = store.listing()
    if data_files(now) != data_files(seen) or now.get(MARKER) != seen.get(MARKER):
        store.remove([claim_name(number)])
        raise _written_meanwhile(store)
    with _renewed(store, claim_name(number), text):
        store.remove([name for name in (MARKER, MANIFEST) if name in now])
        # Old files are removed even where new ones follow, so that the listing shows a write that was lost.
        store.remove([name for name in data_files(now) if name != MANIFEST])
        contents = _upload(store, paths)
    if claims(store.listing())[-1:] != [number] or not store.create(MARKER, marker_text(contents)):
        raise _written_meanwhile(store)
    store.remove([claim_name(one) for one in claims(store.listing()) if one <= number])


def _files(folder: Path) -> dict[str, Path]:
    """Returns the files of a folder by their names in the bucket, without locks and other hidden files at its top."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    return {name: file for name, file in files.items() if not name.startswith(".")}


def refuse_claimed(store: ObjectStore, listing: dict[str, Entry]) -> None:
    """Raises InputError when a writer that seems to be alive has claimed a folder."""
    for number in claims(listing)[-1:]:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            if store.age_seconds(claim_name(number)) < STALE_SECONDS and not _is_dead(_holder(store, number)):
                raise _being_written(store, number)


def _holder(store: ObjectStore, number: int) -> dict[str, Any]:
    """Returns the host and the process of a claim; empty when it cannot be read."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        holder = json.loads(store.read(claim_name(number)))
        if isinstance(holder, dict) and isinstance(holder.get("process"), int) and "host" in holder:
            return holder
    return {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Returns whether the process of a claim was one of this machine and has ended."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _claim(store: ObjectStore) -> tuple[int, bytes]:
    """Claims a folder, and returns number and text of the claim. Raises InputError when another writer has it."""
    listing = store.listing()
    refuse_claimed(store, listing)
    number = max(claims(listing), default=0) + 1
    holder = {"host": socket.gethostname(), "process": os.getpid(), "token": secrets.token_hex(8)}
    text = json.dumps(holder).encode()
    if not store.create(claim_name(number), text):
        raise _being_written(store, number)
    return number, text


@contextlib.contextmanager
def _renewed(store: ObjectStore, name: str, text: bytes) -> Iterator[None]:
    """Writes a claim again every minute, so that it does not look abandoned, until the block ends."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEWAL_SECONDS):
            with contextlib.suppress(InputError, NamedFailure):  # the uploads meet the same error
                store.write(name, text)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _upload(store: ObjectStore, paths: dict[str, Path]) -> dict[str, Content]:
    """Uploads files, the manifest last, until the listing has all of them, and returns what they hold."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        contents = dict(zip(paths, pool.map(content_of, paths.values()), strict=True))
        missing = list(paths)
        for _ in range(_ROUNDS):
            others = [name for name in missing if name != MANIFEST]
            for done in [pool.submit(store.upload, name, paths[name]) for name in others]:
                done.result()
            if MANIFEST in missing:
                store.upload(MANIFEST, paths[MANIFEST])
            listing = store.listing()
            missing = [name for name, one in contents.items() if name not in listing or listing[name].size != one.size]
            if not missing:
                return contents
    raise _lost(store, missing[0])


def _being_written(store: ObjectStore, number: int) -> InputError:
    holder = _holder(store, number)
    who = f"process {holder['process']} of {holder['host']}" if holder else "another process"
    return InputError(
        f"{store.url} is being published by {who}; wait until it ends, or, if it was killed, for "
        f"{STALE_SECONDS / 60:.0f} minutes, and call the same command again"
    )


def _written_meanwhile(store: ObjectStore) -> InputError:
    return InputError(
        f"{store.url} was written by another process in the meantime, so it is not replaced; use it, or choose another "
        "output"
    )


def _lost(store: ObjectStore, name: str) -> NamedFailure:
    return NamedFailure(
        f"{store.url}/{name}: the server took the file and does not list it; call the same command again"
    )
