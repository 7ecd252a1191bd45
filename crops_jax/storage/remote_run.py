"""A run in a bucket while it is trained. Only the bucket counts: the disk of a process may be lost at any time.

    RUN/_CLAIM-000001               process 0, while it trains; empty afterwards
    RUN/_RUN                        written last when a run is begun; manifest.json, config.json and tokenizer/ exist.
                                    Its text is that of a marker, with the files that never change again
    RUN/metrics.jsonl, ...          the small files, which process 0 writes again when they have changed
    RUN/checkpoints/STEP/...        the files of a checkpoint; each process uploads its own
    RUN/checkpoints/STEP/_COMMITTED written by process 0 when all processes have uploaded theirs

Each process works in a local folder of its own, CROPS_CACHE/runs/KEY/NUMBER/NAME, into which a call first copies the
small files and the newest whole checkpoint. Orbax writes the parts of a checkpoint there, and a thread uploads them
while the training goes on. The marker of a checkpoint has the size and the SHA-256 of every file of all processes. The
logs up to its step are in the bucket before it.

No object of a checkpoint is ever written over: process 0 removes what killed processes left before any process uploads,
and the uploads are conditional puts. So a process of an earlier call that still lives cannot damage a checkpoint.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from crops_jax.artifacts import in_place
from crops_jax.artifacts.manifest import MANIFEST
from crops_jax.devices.processes import Processes
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.storage import claims
from crops_jax.storage.inputs import (
    CHECKPOINTS,
    NEVER_READ,
    download_published,
    read_small_files,
    whole_checkpoints,
)
from crops_jax.storage.marker import (
    MARKER,
    RUN_MARKER,
    Content,
    content_of,
    data_files,
    marker_text,
    part_name,
    read_marker,
)
from crops_jax.storage.objects.parallel import in_parallel
from crops_jax.storage.objects.store import Entry, ObjectStore
from crops_jax.storage.outputs import files_below, upload_files

MIRROR_SECONDS = 30.0
"""The seconds between two looks for small files that have changed."""
_POLL_SECONDS = 0.1
_LAST_SECONDS = 10.0
"""The seconds for which a process that ends by an error waits for an upload."""
_UPLOADED, _COMMITTED = "checkpoint_uploaded", "checkpoint_committed"
"""The names under which processes tell one another the step that they have uploaded, or that is whole."""

_runs: dict[Path, "RemoteRun"] = {}


class _State(NamedTuple):
    """The state of a local file, which differs when the file has changed."""

    changed: int
    """The time of the last change, in nanoseconds since 1970."""
    size: int
    """The number of bytes."""


class _TakenOver(NamedFailure):
    """Another program has claimed the run."""


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
        self._is_made = self._is_begun = False
        self._steps: list[int] = []
        self._sent: dict[str, _State] = {}
        self._sending = threading.Lock()
        self._stopped = threading.Event()
        self._upload: threading.Thread | None = None
        self._error: BaseException | None = None

    @contextlib.contextmanager
    def claimed(self, cluster: Processes, *, program: str, kind: str) -> Iterator[None]:
        """Holds the run until the block ends; see `opened`."""
        self._cluster = cluster
        try:
            with cluster.together():
                if cluster.is_first:
                    self._take(program, kind)
            self._is_made, self._steps = cluster.from_first([self._is_made, self._steps])
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
                        raise self._taken()
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
                with self._failures_named("the result"):
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
                raise self._taken()
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

    def start_upload(self, step: int, *, written: Callable[[], None], kept: Callable[[list[int]], set[int]]) -> None:
        """Starts to upload a checkpoint of which this process writes its part to the local folder.

        All processes must call this. The upload before must have ended (`wait`).

        Args:
          step: the step of the checkpoint.
          written: waits until the part is written.
          kept: returns which of the steps in the bucket are kept when this one is whole.
        """

        def upload() -> None:
            try:
                written()
                self._upload_checkpoint(step, kept)
            except BaseException as error:
                self._error = error

        self._upload = threading.Thread(target=upload, name="checkpoint upload", daemon=True)
        self._upload.start()

    def join(self) -> None:
        """Waits until the upload has ended, well or not."""
        if self._upload is not None:
            self._upload.join()

    def wait(self) -> None:
        """Waits until the checkpoint is whole in the bucket.

        Raises NamedFailure when the server refuses it or fails again and again, or when another program has taken over
        the run.
        """
        self.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def last_good(self) -> str:
        """Returns a clause for messages that names the last whole checkpoint in the bucket."""
        if not self._steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.url}/{CHECKPOINTS}/{self._steps[-1]}"

    def _take(self, program: str, kind: str) -> None:
        """Claims the run, and removes what killed processes left of checkpoints."""
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
        self._is_made, self._steps = RUN_MARKER in listing, whole_checkpoints(listing)
        if self._is_made:
            self._remove([name for name in listing if _is_in_unfinished_checkpoint(name, self._steps)])
        else:
            self._remove(list(data_files(listing)))  # of a call that was killed while it began the run

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
        for step in self._steps[-1:]:
            checkpoint = self._checkpoint(step)
            try:
                download_published(checkpoint, self.folder / CHECKPOINTS / str(step))
            except InputError as error:
                raise InputError(
                    f"{checkpoint.url}: the checkpoint cannot be read ({error}); remove that folder to go on from the "
                    "one before it"
                ) from error

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
                with contextlib.suppress(InputError, NamedFailure) if failed else self._failures_named("the logs"):
                    self.send_small_files()

    def _let_go(self) -> None:
        """Gives the claim back, unless a thread of this process can still write under it."""
        self._stopped.set()
        if self._upload is not None:
            self._upload.join(_LAST_SECONDS)
            if self._upload.is_alive():
                return
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
        # A run that was begun and is not one yet is recognised by the claim, which the next call takes over.
        if self._claim is not None and (self._is_made or not self._is_begun):
            with contextlib.suppress(InputError, NamedFailure):
                (claims.give_back if self._is_made else claims.release)(self._store, self._claim)

    def _upload_checkpoint(self, step: int, kept: Callable[[list[int]], set[int]]) -> None:
        cluster, checkpoint, what = self._cluster, self._checkpoint(step), f"the checkpoint of step {step}"
        with self._failures_named(what):
            contents = upload_files(checkpoint, self._own_files(step), replaces=False)
            if not cluster.is_first and not checkpoint.create(part_name(cluster.index), marker_text(contents)):
                raise self._taken()
        cluster.publish(_UPLOADED, step)
        if not cluster.is_first:
            self._wait_for(_COMMITTED, step, {0})
            self._steps = [step]
            return
        self._wait_for(_UPLOADED, step, set(range(1, cluster.count)))
        with self._failures_named(what):
            self._commit(checkpoint, contents)
        self._steps.append(step)
        cluster.publish(_COMMITTED, step)
        with contextlib.suppress(InputError, NamedFailure):  # the next checkpoint, or the next call, removes them
            self._prune(kept(self._steps))

    def _commit(self, checkpoint: ObjectStore, contents: dict[str, Content]) -> None:
        """Writes the marker of a checkpoint whose files are all there, after the logs up to its step."""
        parts = [part_name(process) for process in range(1, self._cluster.count)]
        for part in parts:
            contents = read_marker(checkpoint, part) | contents
        self.send_small_files()
        if self._stopped.is_set() or not self._is_ours():
            raise self._taken()
        if not checkpoint.create(MARKER, marker_text(contents)):
            raise self._taken()
        checkpoint.remove(parts)

    def _prune(self, kept: set[int]) -> None:
        for step in [one for one in self._steps if one not in kept]:
            checkpoint = self._checkpoint(step)
            checkpoint.remove([MARKER])  # first, so that no part passes for the whole
            self._steps.remove(step)
            self._remove([f"{CHECKPOINTS}/{step}/{name}" for name in checkpoint.listing()])

    def _is_ours(self) -> bool:
        return self._claim is not None and claims.is_last(self._store, self._claim)

    def _wait_for(self, name: str, step: int, processes: set[int]) -> None:
        """Waits until processes have published a step or a later one."""
        while any(self._cluster.published(name).get(process, -1) < step for process in processes):
            if self._stopped.wait(_POLL_SECONDS):
                raise self._taken()

    def _own_files(self, step: int) -> dict[str, Path]:
        """Returns the files that this process uploads of its part. Those that are no arrays are in all parts."""
        files = files_below(self.folder / CHECKPOINTS / str(step))
        # ITEM/ARRAY/CHUNK
        return {name: file for name, file in files.items() if self._cluster.is_first or name.count("/") >= 2}

    def _small_files(self) -> dict[str, Path]:
        return {
            name: file
            for name, file in files_below(self.folder).items()
            if (parts := name.split("/"))[0] not in (CHECKPOINTS, *NEVER_READ)
            and not any(part.startswith(".") for part in parts)
        }

    def _checkpoint(self, step: int) -> ObjectStore:
        return ObjectStore(f"{self.url}/{CHECKPOINTS}/{step}")

    def _remove(self, objects: list[str]) -> None:
        in_parallel(lambda name: self._store.remove([name]), objects)

    @contextlib.contextmanager
    def _failures_named(self, what: str) -> Iterator[None]:
        """Turns what a server refuses in the middle of a training into a failure that names the last checkpoint."""
        try:
            yield
        except FileExistsError as error:
            raise self._taken() from error
        except _TakenOver:
            raise
        except (InputError, NamedFailure) as error:
            raise NamedFailure(f"{what} could not be written: {error}. {self._kept()}") from error

    def _kept(self) -> str:
        clause = self.last_good()
        return f"{clause[0].upper()}{clause[1:]}, and the same command goes on"

    def _taken(self) -> _TakenOver:
        return _TakenOver(
            f"another program has taken over {self.url}, because this one gave no sign of life; {self.last_good()}"
        )


def _state(file: Path) -> _State:
    return _State(file.stat().st_mtime_ns, file.stat().st_size)


def _lasts(name: str) -> bool:
    """Returns whether a small file of a run that is begun never changes. config.json and logs do."""
    return name == MANIFEST or "/" in name


def _is_in_unfinished_checkpoint(name: str, whole: list[int]) -> bool:
    folder, _, rest = name.partition("/")
    return folder == CHECKPOINTS and rest.partition("/")[0] not in {str(step) for step in whole}
