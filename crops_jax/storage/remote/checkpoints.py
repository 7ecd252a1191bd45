"""The checkpoints of a run in a bucket (crops_jax.storage.remote.run), which are uploaded while the training goes on.

    RUN/checkpoints/STEP/...        the files of a checkpoint; each process uploads its own
    RUN/checkpoints/STEP/_COMMITTED written by process 0 when all processes have uploaded theirs

Orbax writes the parts of a checkpoint to a local folder of each process, and a thread uploads them. The marker of a
checkpoint has the size and the SHA-256 of every file of all processes. The logs up to its step are in the bucket before
it.

No object of a whole checkpoint is ever written over, because the uploads are conditional puts. Process 0 removes what
killed processes left before any process uploads. A process of an earlier call that still lives, such as one that was
suspended, can leave a part of a checkpoint later: the present one meets it, looks whether the run is still its own, and
removes it.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from crops_jax.devices.processes import Processes
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage.inputs import CHECKPOINTS, download_published, whole_checkpoints
from crops_jax.storage.marker import MARKER, Content, marker_text, part_name, read_marker
from crops_jax.storage.objects.parallel import in_parallel
from crops_jax.storage.objects.store import ObjectStore
from crops_jax.storage.outputs import files_below, upload_files

_POLL_SECONDS = 0.1
_ROUNDS = 3
"""The number of times that a part is uploaded where another program, which has lost the run, writes too."""
_UPLOADED, _COMMITTED = "checkpoint_uploaded", "checkpoint_committed"
"""The names under which processes tell one another the step that they have uploaded, or that is whole."""


class _TakenOver(NamedFailure):
    """Another program has claimed the run."""


class RemoteCheckpoints:
    """The checkpoints of one run in a bucket. At most one of them is being uploaded."""

    def __init__(self, url: str, folder: Path, *, is_ours: Callable[[], bool], send_logs: Callable[[], None]):
        """
        Args:
          url: the run, gs://BUCKET/PATH or s3://BUCKET/PATH.
          folder: the local folder of the checkpoints of this process.
          is_ours: returns whether the run is still claimed by the processes of this call.
          send_logs: uploads the logs of the run; process 0 alone calls it.
        """
        self._url, self._folder = url, folder
        self._store = ObjectStore(url)
        self._is_ours, self._send_logs = is_ours, send_logs
        self._cluster = Processes(0, 1)
        self._steps: list[int] = []
        self._stopped = threading.Event()
        self._upload: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, cluster: Processes, steps: Collection[int]) -> None:
        """Takes up the whole checkpoints that the bucket has.

        Args:
          cluster: the processes that train the run.
          steps: the steps of the checkpoints, in ascending order.
        """
        self._cluster, self._steps = cluster, list(steps)

    def download_newest(self) -> None:
        """Downloads the newest whole checkpoint, if there is one. Raises InputError, naming it, if it is damaged."""
        for step in self._steps[-1:]:
            checkpoint = self._checkpoint(step)
            try:
                download_published(checkpoint, self._folder / str(step))
            except InputError as error:
                raise InputError(
                    f"{checkpoint.url}: the checkpoint cannot be read ({error}); remove that folder to go on from the "
                    "one before it"
                ) from error

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

    def stop(self, seconds: float) -> bool:
        """Makes an upload that runs give up, and removes the local files unless it still reads them.

        Returns whether the upload has ended within these seconds.
        """
        self._stopped.set()
        if self._upload is not None:
            self._upload.join(seconds)
            if self._upload.is_alive():
                return False
        shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def last_good(self) -> str:
        """Returns a clause for messages that names the last whole checkpoint in the bucket."""
        if not self._steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self._url}/{CHECKPOINTS}/{self._steps[-1]}"

    def taken_over(self) -> NamedFailure:
        """Returns the failure of a program whose run another one has claimed."""
        return _TakenOver(
            f"another program has taken over {self._url}, because this one gave no sign of life; {self.last_good()}"
        )

    @contextlib.contextmanager
    def failures_named(self, what: str) -> Iterator[None]:
        """Turns what a server refuses in the middle of a training into a failure that names the last checkpoint.

        what: a noun for what is written.
        """
        try:
            yield
        except FileExistsError as error:
            raise self.taken_over() from error
        except _TakenOver:
            raise
        except (InputError, NamedFailure) as error:
            last = self.last_good()
            raise NamedFailure(
                f"{what} could not be written: {error}. {last[0].upper()}{last[1:]}, and the same command goes on"
            ) from error

    def _upload_checkpoint(self, step: int, kept: Callable[[list[int]], set[int]]) -> None:
        cluster, checkpoint, what = self._cluster, self._checkpoint(step), f"the checkpoint of step {step}"
        with self.failures_named(what):
            contents = self._upload_part(checkpoint, step)
        cluster.publish(_UPLOADED, step)
        if not cluster.is_first:
            self._wait_for(_COMMITTED, step, {0})
            self._steps = [step]
            return
        self._wait_for(_UPLOADED, step, set(range(1, cluster.count)))
        with self.failures_named(what):
            self._commit(checkpoint, contents)
        self._steps.append(step)
        cluster.publish(_COMMITTED, step)
        with contextlib.suppress(InputError, NamedFailure):  # the next checkpoint, or the next call, removes them
            self._prune(kept(self._steps))

    def _upload_part(self, checkpoint: ObjectStore, step: int) -> dict[str, Content]:
        """Uploads the files of this process and, unless it is the first one, their marker; returns what they hold."""
        files, part = self._own_files(step), part_name(self._cluster.index)
        for _ in range(_ROUNDS):
            if not self._is_ours():
                break
            with contextlib.suppress(FileExistsError):
                contents = upload_files(checkpoint, files, replaces=False)
                if self._cluster.is_first or checkpoint.create(part, marker_text(contents)):
                    return contents
            if self._is_ours():  # then a program from which this one has taken over wrote there
                remove_objects(checkpoint, [*files, part])
        raise self.taken_over()

    def _commit(self, checkpoint: ObjectStore, contents: dict[str, Content]) -> None:
        """Writes the marker of a checkpoint whose files are all there, after the logs up to its step."""
        parts = [part_name(process) for process in range(1, self._cluster.count)]
        for part in parts:
            contents = read_marker(checkpoint, part) | contents
        self._send_logs()
        if self._stopped.is_set() or not self._is_ours():
            raise self.taken_over()
        if not checkpoint.create(MARKER, marker_text(contents)):
            raise self.taken_over()
        checkpoint.remove(parts)

    def _prune(self, kept: set[int]) -> None:
        for step in [one for one in self._steps if one not in kept]:
            checkpoint = self._checkpoint(step)
            checkpoint.remove([MARKER])  # first, so that no part passes for the whole
            self._steps.remove(step)
            remove_objects(self._store, [f"{CHECKPOINTS}/{step}/{name}" for name in checkpoint.listing()])

    def _wait_for(self, name: str, step: int, processes: set[int]) -> None:
        """Waits until processes have published a step or a later one."""
        while any(self._cluster.published(name).get(process, -1) < step for process in processes):
            if self._stopped.wait(_POLL_SECONDS):
                raise self.taken_over()

    def _own_files(self, step: int) -> dict[str, Path]:
        """Returns the files that this process uploads of its part. Those that are no arrays are in all parts."""
        files = files_below(self._folder / str(step))
        # ITEM/ARRAY/CHUNK
        return {name: file for name, file in files.items() if self._cluster.is_first or name.count("/") >= 2}

    def _checkpoint(self, step: int) -> ObjectStore:
        return ObjectStore(f"{self._url}/{CHECKPOINTS}/{step}")


def in_unfinished_checkpoints(listing: Collection[str]) -> list[str]:
    """Returns those of the objects of a run that belong to a checkpoint which is not whole."""
    whole = {str(step) for step in whole_checkpoints(listing)}
    parts = {name: name.split("/") for name in listing}
    return [name for name, (folder, *rest) in parts.items() if folder == CHECKPOINTS and not {*rest[:1]} & whole]


def remove_objects(store: ObjectStore, objects: Collection[str]) -> None:
    """Removes objects of a run, several at a time."""
    in_parallel(lambda name: store.remove([name]), objects)
