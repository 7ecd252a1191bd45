"""A run in a bucket while it is trained. Only the bucket counts: the disk of a process may be lost at any time.

    RUN/_CLAIM-000001               process 0, while it trains; empty afterwards
    RUN/_RUN                        written last when a run is begun; manifest.json, config.json and tokenizer/ exist.
                                    Its text is that of a marker, with the files that never change again
    RUN/metrics.jsonl, ...          the small files, which process 0 writes again when they have changed
    RUN/checkpoints/...             see crops_jax.storage.remote.checkpoints

Each process works in a local folder of its own, CROPS_CACHE/runs/KEY/NUMBER/NAME, into which a call first copies the
small files and the newest whole checkpoint.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crops_jax.artifacts import in_place
from crops_jax.artifacts.manifest import MANIFEST
from crops_jax.devices.processes import Processes
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.storage import claims
from crops_jax.storage.inputs import CHECKPOINTS, NEVER_READ, read_small_files, whole_checkpoints
from crops_jax.storage.marker import RUN_MARKER, content_of, data_files, marker_text, read_marker
from crops_jax.storage.objects.store import Entry, ObjectStore
from crops_jax.storage.outputs import files_below
from crops_jax.storage.remote.checkpoints import RemoteCheckpoints, in_unfinished_checkpoints, remove_objects

MIRROR_SECONDS = 30.0
"""The seconds between two looks for small files that have changed."""
_LAST_SECONDS = 10.0
"""The seconds for which a process that ends by an error waits for an upload."""

_runs: dict[Path, "RemoteRun"] = {}


class _State(NamedTuple):
    """The state of a local file, which differs when the file has changed."""

    changed: int
    """The time of the last change, in nanoseconds since 1970."""
    size: int
    """The number of bytes."""


def of(folder: Path | str) -> "RemoteRun | None":
    """Returns the run in a bucket that a local folder stands for; None for a run on a file system."""
    return _runs.get(Path(folder).absolute())


@contextlib.contextmanager
def known(folder: Path, url: str) -> Iterator[None]:
    """Lets a local folder stand for a run in a bucket until the block ends."""
    _runs[folder] = RemoteRun(url, folder)
    try:
        yield
    finally:
        del _runs[folder]


@contextlib.contextmanager
def opened(folder: Path | str, cluster: Processes, *, program: str, kind: str) -> Iterator[None]:
    """Claims the run that a local folder stands for, and fills the folder. Does nothing for a run on a file system.

    All processes must call this. While the block runs, the first of them keeps the small files in the bucket up to
    date, and when the block ends, they are all there.

    Args:
      folder: the local folder.
      cluster: the processes that train the run.
      program: the program that trains it.
      kind: the kind of its manifest.

    Raises:
      InputError: another process trains in the run, or the path holds something else.
      NamedFailure: the server fails again and again.
    """
    run = of(folder)
    if run is None:
        yield
        return
    with run.claimed(cluster, program=program, kind=kind):
        yield


class RemoteRun:
    """The run in a bucket that one local folder stands for."""

    def __init__(self, url: str, folder: Path):
        """
        Args:
          url: gs://BUCKET/PATH or s3://BUCKET/PATH.
          folder: the local folder, which this process alone uses. It is made when the run is opened.
        """
        self.url, self.folder = url, folder
        self._store = ObjectStore(url)
        self._cluster = Processes(0, 1)
        self._claim: claims.Claim | None = None
        self._claim_number = 0
        self._is_made = self._is_begun = False
        self._sent: dict[str, _State] = {}
        self._sending = threading.Lock()
        self.checkpoints = RemoteCheckpoints(
            url, folder / CHECKPOINTS, is_ours=self._is_ours, send_logs=self.send_small_files
        )
        """The checkpoints in the bucket, of which the local folder has the parts of this process."""

    @contextlib.contextmanager
    def claimed(self, cluster: Processes, *, program: str, kind: str) -> Iterator[None]:
        """Holds the run until the block ends; see `opened`."""
        self._cluster = cluster
        try:
            steps: list[int] = []
            with cluster.together():
                if cluster.is_first:
                    steps = self._take(program, kind)
            number = 0 if self._claim is None else self._claim.number
            self._is_made, steps, self._claim_number = cluster.from_first([self._is_made, steps, number])
            self.checkpoints.begin(cluster, steps)
            with cluster.together():
                self._fill()
            with self._kept_up_to_date():
                yield
        finally:
            self._let_go()

    def share(self) -> None:
        """Gives the small files of process 0 to the bucket and to the other processes, and makes the run one."""
        with self._cluster.together():
            if self._cluster.is_first:
                self._is_begun = True
                self.send_small_files()
                if not self._is_made:
                    lasting = {name: file for name, file in self._small_files().items() if _lasts(name)}
                    text = marker_text({name: content_of(file) for name, file in lasting.items()})
                    if not self._store.create(RUN_MARKER, text):
                        raise self.checkpoints.taken_over()
        self._is_made = True
        with self._cluster.together():
            if not self._cluster.is_first:
                read_small_files(self._store, self._store.listing(), self.folder)

    def seal(self, *names: str) -> None:
        """Uploads the small files, and adds some of them, which never change again, to the run's marker.

        A reader compares those with what was written.

        Raises NamedFailure as `send_small_files`, or when the server refuses them.
        """
        with self._cluster.together():
            if self._cluster.is_first:
                with self.checkpoints.failures_named("the result"):
                    self.send_small_files()
                    known = read_marker(self._store, RUN_MARKER)
                    sealed = known | {name: content_of(self.folder / name) for name in names}
                    if sealed != known:
                        self._store.write(RUN_MARKER, marker_text(sealed))

    def send_small_files(self) -> None:
        """Uploads the small files that have changed since they were uploaded, in the order of their last changes.

        So a file that a program writes last, because it says that others are there, comes after them.

        Raises NamedFailure when another program has taken over the run.
        """
        with self._sending:
            states = {name: _state(file) for name, file in self._small_files().items()}
            changed = [name for name, state in states.items() if self._sent.get(name) != state]
            changed.sort(key=lambda name: states[name].changed)
            if changed and not self._is_ours():
                raise self.checkpoints.taken_over()
            for name in changed:
                self._store.write(name, (self.folder / name).read_bytes())
                self._sent[name] = states[name]

    def send_soon(self, name: str) -> None:
        """Uploads one small file, and returns after some seconds at most. Errors are ignored: this process ends."""

        def send() -> None:
            with contextlib.suppress(InputError, NamedFailure, OSError):
                self._store.write(name, (self.folder / name).read_bytes())

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_LAST_SECONDS)

    def _take(self, program: str, kind: str) -> list[int]:
        """Claims the run and removes what killed processes left. Returns the steps of the whole checkpoints."""
        listing = self._store.listing()
        if not any(name == RUN_MARKER or name.startswith("_CLAIM-") for name in listing) and listing:
            raise self._foreign(listing, program, kind)
        if RUN_MARKER not in listing and whole_checkpoints(listing):
            raise InputError(
                f"{self.url} has checkpoints, and its {RUN_MARKER} was removed; copy it to a disk and go on there, or "
                "choose another --output"
            )
        self._claim = claims.take_when_silent(self._store)  # the number of a run's claims only grows
        listing = self._store.listing()
        self._is_made, steps = RUN_MARKER in listing, whole_checkpoints(listing)
        # Without the marker, the objects are those of a call that was killed while it began the run.
        remove_objects(self._store, in_unfinished_checkpoints(listing) if self._is_made else list(data_files(listing)))
        return steps

    def _foreign(self, listing: dict[str, Entry], program: str, kind: str) -> InputError:
        if MANIFEST not in listing:
            return InputError(
                f"{self.url} holds files that no program of crops_jax wrote; choose another --output, or remove them"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store.download(MANIFEST, self.folder / MANIFEST, size=listing[MANIFEST].size)
        in_place.check_written_by(self.folder, program=program, kind=kind, noun="a run")
        return InputError(
            f"{self.url} is a run that was copied there, so nothing says which of its checkpoints are whole; copy it "
            "to a disk and go on there, or choose another --output"
        )

    def _fill(self) -> None:
        """Makes the local folder what the bucket has: nothing for a new run."""
        kept = NEVER_READ if self._is_made else ()
        for entry in self.folder.iterdir() if self.folder.is_dir() else []:
            if entry.name not in kept:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not self._is_made:
            if self.folder.is_dir():
                self.folder.rmdir()
            return
        read_small_files(self._store, self._store.listing(), self.folder)
        self._sent = {name: _state(file) for name, file in self._small_files().items()}
        self.checkpoints.download_newest()

    @contextlib.contextmanager
    def _kept_up_to_date(self) -> Iterator[None]:
        """Renews the claim and uploads what has changed until the block ends, and once more then."""
        if not self._cluster.is_first or self._claim is None:
            yield
            return
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(MIRROR_SECONDS):
                with contextlib.suppress(InputError, NamedFailure):  # the next look, or the end, does it
                    if self._is_made:
                        self.send_small_files()

        thread = threading.Thread(target=follow, name="logs of the run", daemon=True)
        thread.start()
        failed = False
        try:
            with claims.renewed(self._store, self._claim):
                yield
        except BaseException as error:
            failed = not isinstance(error, Interrupted)
            raise
        finally:
            ended.set()
            thread.join()
            if self._is_made:
                named = self.checkpoints.failures_named("the logs")
                with contextlib.suppress(InputError, NamedFailure) if failed else named:
                    self.send_small_files()

    def _let_go(self) -> None:
        """Gives the claim back, unless a thread of this process can still write under it."""
        if not self.checkpoints.stop(_LAST_SECONDS):
            return
        # A run that was begun and is not one yet is recognised by the claim, which the next call takes over.
        if self._claim is not None and (self._is_made or not self._is_begun):
            with contextlib.suppress(InputError, NamedFailure):
                (claims.give_back if self._is_made else claims.release)(self._store, self._claim)

    def _is_ours(self) -> bool:
        return claims.is_last(self._store, self._claim_number)

    def _small_files(self) -> dict[str, Path]:
        return {
            name: file
            for name, file in files_below(self.folder).items()
            if (parts := name.split("/"))[0] not in (CHECKPOINTS, *NEVER_READ)
            and not any(part.startswith(".") for part in parts)
        }


def _state(file: Path) -> _State:
    return _State(file.stat().st_mtime_ns, file.stat().st_size)


def _lasts(name: str) -> bool:
    """Returns whether a small file of a run that is begun never changes. config.json and logs do."""
    return name == MANIFEST or "/" in name
