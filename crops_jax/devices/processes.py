"""The processes of a cluster that run one program together: how they join, agree, and end.

Each process has its own devices and runs the same command; crops_jax.devices.cluster_environment says how they find one
another. They meet in the same calls in the same order. What one tells the others goes through JAX's coordination
service, which process 0 holds, and not through devices.

When a process fails, none of the others is left waiting for it:

* All fail alike (a loss that is not finite, a wrong argument): process 0 says why, all have the same exit status.
* One fails alone (a full disk, a damaged file): it tells the others, which end within seconds with its exit status.
* One dies without a word (SIGKILL, a machine that is lost): the others end when their exchange with it breaks, on a CPU
  mostly at once, or else when the coordination service has missed its heartbeats for 100 s. Exit status 4, or SIGABRT,
  by which JAX's client ends a process that learns it from the service or has lost process 0.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from crops_jax.devices.cluster_environment import membership
from crops_jax.errors import AnotherProcessFailed, InputError, NamedFailure, explained, one_line

_PREFIX = "crops_jax"
# As long as process 0 may take to make a run while the others wait; a process that died ends the wait sooner.
_PATIENCE_SECONDS = 24 * 3600
# How XLA and JAX say that they lost another process.
_LOST = ("gloo", "connection closed by peer", "connection reset by peer", "nccl", "coordination service", "heartbeat")


class Processes:
    """The processes, seen from one of them.

    Attributes:
      index: number of this one.
      count: how many there are.
    """

    def __init__(
        self,
        index: int,
        count: int,
        service: Any = None,
        *,
        exit_process: Callable[[int], Any] = os._exit,
        grace_seconds: float = 5.0,
        poll_seconds: float = 1.0,
    ):
        """
        Args:
          service: client of the coordination service; None for the only process.
          exit_process: ends this process at once.
          grace_seconds: how long a process that failed waits for the failures of the others, and for others to hear of
        its own. Failures of all processes come within this time.
          poll_seconds: the interval at which a process looks for failures of the others.
        """
        self._grace_seconds, self._poll_seconds = grace_seconds, poll_seconds
        self.index, self.count = index, count
        self._service, self._exit = service, exit_process
        self._rounds = 0
        self._ended = threading.Event()
        self._fails_together = False

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes what there is one of, and speaks to the user."""
        return self.index == 0

    def gathered(self, value: Any) -> list[Any]:
        """What every process gave, by number, when all of them have come here. value: as JSON has it.

        Raises NamedFailure when one of them has died.
        """
        if self.count == 1:
            return [value]
        self._rounds += 1
        place = f"{_PREFIX}/round/{self._rounds}"
        try:
            self._service.key_value_set(f"{place}/{self.index}", json.dumps(value))
            self._service.wait_at_barrier(place, _PATIENCE_SECONDS * 1000)
            found = self._read(place)
        except RuntimeError as error:
            raise _lost(error) from error
        return [found[index] for index in range(self.count)]

    def from_first(self, value: Any) -> Any:
        """The value of process 0, in all of them."""
        return self.gathered(value if self.is_first else None)[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A part of the program in which all processes succeed or all fail.

        Each leaves it when all have come to its end. A failure is raised in its own process; in the others
        AnotherProcessFailed is, with the exit status of the first process that failed. May hold what process 0 does
        alone. Parts do not nest.
        """
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failed = error
        statuses = self.gathered(_status(failed))
        first = next((index for index, status in enumerate(statuses) if status), None)
        if first is not None:
            self._fails_together = True
            if failed is None or (first < self.index and _status(failed) == statuses[first]):
                raise AnotherProcessFailed(statuses[first]) from None
            raise failed

    def failing(self, error: BaseException) -> BaseException:
        """What to raise for a failure of this process, once it is known that all have failed alike.

        Where the others have not, they are told, and this process ends here, with a message or a traceback.
        """
        if self._fails_together:
            return error
        if (loss := _loss(error)) is not None:
            error = _lost(loss)
        mine = [_status(error), str(error)]
        with contextlib.suppress(RuntimeError):
            self._tell("failed", mine)
            failures = self._all_of("failed", self.count)
            if len(failures) == self.count:
                return error if self.is_first or failures[0] != mine else AnotherProcessFailed(mine[0])
        self._say(error)
        with contextlib.suppress(RuntimeError):
            self._tell("end", mine)
            self._all_of("heard", self.count - 1)
        self._exit(mine[0])
        return error

    def listen(self) -> None:
        """Starts to end this process when another one has failed alone."""
        threading.Thread(target=self._listen, name="other processes", daemon=True).start()

    def leave(self) -> None:
        """Waits for the others to come to their end too."""
        import jax

        self._ended.set()
        jax.distributed.shutdown()

    def _listen(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            try:
                found = self._read(f"{_PREFIX}/end")
                if not found or self.index in found:
                    continue
                index, (status, message) = min(found.items())
                if self.is_first:
                    print(f"error: process {index} of {self.count}: {message}", file=sys.stderr, flush=True)
                self._tell("heard", None)
            except RuntimeError:  # the coordinator is gone: JAX's client ends this process
                return
            self._exit(status)

    def _say(self, error: BaseException) -> None:
        found = explained(error)
        if found is None:
            traceback.print_exception(error)
        else:
            print(f"error: process {self.index} of {self.count}: {found[1]}", file=sys.stderr)
        sys.stderr.flush()

    def _tell(self, name: str, value: Any) -> None:
        self._service.key_value_set(f"{_PREFIX}/{name}/{self.index}", json.dumps(value))

    def _read(self, place: str) -> dict[int, Any]:
        found = self._service.key_value_dir_get(f"{place}/")
        return {int(key.rpartition("/")[2]): json.loads(value) for key, value in found}

    def _all_of(self, name: str, count: int) -> dict[int, Any]:
        """What processes told under a name, once `count` have, or after a while."""
        deadline = time.monotonic() + self._grace_seconds
        while len(found := self._read(f"{_PREFIX}/{name}")) < count and time.monotonic() < deadline:
            self._ended.wait(0.05)
        return found


_current = Processes(0, 1)


def current() -> Processes:
    """The processes that this program runs in; before `joined` and without it the only one."""
    return _current


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Joins the other processes where the environment says that there are some; to be entered before JAX has devices.

    Returns at the end of the block in all processes or in none: see the module's docstring for failures inside it.

    Raises:
      InputError: variables that contradict one another or are not all there.
      NamedFailure: the others were not found within 5 minutes.
    """
    global _current
    arguments = membership(os.environ)
    here = None if arguments is None else _join(arguments)
    if here is None:
        yield _current
        return
    _current = here
    here.listen()
    try:
        yield here
    except BaseException as error:
        raised = here.failing(error)
        here.leave()
        if raised is error:
            raise
        raise raised from None
    here.leave()


def refuse_several(program: str) -> None:
    """Raises InputError where the environment says that a program which knows one process only was started in more."""
    found = membership(os.environ, looks_for_tpu=lambda: False)
    if found is not None:
        raise InputError(
            f"{program} works in one process, and the environment says that there are several; start it once, without "
            "srun, mpirun and JAX_NUM_PROCESSES"
        )


def _join(arguments: dict[str, Any]) -> Processes | None:
    import jax
    from jax._src import distributed  # its client has no public name; Orbax takes it from here too

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own service would take SIGTERM over; crops_jax.training.guards answers it, and SIGINT too.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments)
    except ValueError:
        if arguments:
            raise
        return None  # TPU chips, but no pod
    except RuntimeError as error:
        raise NamedFailure(
            f"the processes did not find one another ({one_line(error)}); check the address of process 0 and its "
            "port, and that all were started"
        ) from error
    state = distributed.global_state
    return Processes(state.process_id, state.num_processes, state.client) if state.num_processes > 1 else None


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    found = explained(error)
    return 1 if found is None else found[0]


def _loss(error: BaseException | None) -> BaseException | None:
    """How XLA or JAX said that another process is lost, if that is what `error` is or comes from."""
    while isinstance(error, RuntimeError | TimeoutError):
        text = str(error).lower()
        if isinstance(error, RuntimeError) and any(words in text for words in _LOST):
            return error
        error = error.__cause__  # Orbax's threads that save raise TimeoutError from it
    return None


def _lost(error: BaseException) -> NamedFailure:
    return NamedFailure(
        f"another process of the cluster is gone ({one_line(error)}); what was saved is kept; call the same command "
        "again in all processes to go on"
    )
