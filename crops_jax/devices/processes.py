"""The processes of a cluster that run one program together: how they join, exchange values, and end.

Each process has its own devices and runs the same command; crops_jax.devices.cluster_environment describes how they
find one another. All processes make the same calls in the same order. They exchange values through JAX's coordination
service, which process 0 runs, and not through devices.

When a process fails, no other process waits for it forever:

* All processes fail in the same way (a loss that is not finite, a wrong argument): process 0 prints the reason, and all
  have the same exit status.
* One process fails alone (a full disk, a damaged file): it reports this to the others, which end within seconds with
  its exit status.
* One process dies without a report (SIGKILL, a lost machine): the others end when their exchange with it breaks. On a
  CPU this is mostly at once; otherwise it is when the coordination service has missed its heartbeats for
  --cluster.heartbeat-seconds. Their exit status is 4, or that of SIGABRT, with which JAX's client ends a process that
  the service informs or that has lost process 0.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from crops_jax.devices.cluster_environment import job_of, membership, resolved, tpu_machines
from crops_jax.devices.roll_call import meet
from crops_jax.errors import AnotherProcessFailed, InputError, NamedFailure, explained, one_line
from crops_jax.storage.names import shown


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The times after which the processes of a cluster give one another up."""

    initialisation_seconds: int = 300
    """The time in seconds within which all processes must be started; a program that misses one ends with status 4."""
    heartbeat_seconds: int = 30
    """The time in seconds without a heartbeat of a process after which it counts as lost, and the others end."""

    def __post_init__(self) -> None:
        for name in ("initialisation_seconds", "heartbeat_seconds"):
            if not 0 < (value := getattr(self, name)) <= _MOST_SECONDS:
                flag = f"--cluster.{name.replace('_', '-')}"
                raise ValueError(f"{flag} must be positive and at most {_MOST_SECONDS:,} s (a day), found {value}")


_MOST_SECONDS = 24 * 3600
_PREFIX = "crops_jax"
# The maximum time for which processes wait for one another, as while process 0 creates a run. A process that died ends
# the wait sooner.
_PATIENCE_SECONDS = _MOST_SECONDS
_JOINING_SECONDS = 60
"""The time in seconds that JAX has to join processes that have all come."""
_SHORTEST_SECONDS = 1.0
# Parts of the messages with which XLA and JAX report that another process is lost.
_LOST = ("gloo", "connection closed by peer", "connection reset by peer", "nccl", "coordination service", "heartbeat")


class Processes:
    """The processes of a program, as one of them sees them.

    Attributes:
      index: the number of this process, from 0.
      count: the number of processes.
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
        last_seconds: float = 1.0,
    ):
        """
        Args:
          service: the client of the coordination service; None for the only process.
          exit_process: ends this process at once.
          grace_seconds: the time in seconds that a process that failed waits for the failures of the others. One that
            fails alone also waits this long for the others to acknowledge its report.
          poll_seconds: the interval in seconds at which a process looks for failures of the others.
          last_seconds: the time in seconds that process 0, which runs the service, gives the others to end after their
            last report. JAX's client ends a process that has lost the service with SIGABRT.
        """
        self._grace_seconds, self._poll_seconds, self._last_seconds = grace_seconds, poll_seconds, last_seconds
        self.index, self.count = index, count
        self._service, self._exit = service, exit_process
        self._rounds = 0
        self._ended = threading.Event()
        self._fails_together = False

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which alone writes files that exist once, and prints messages to the user."""
        return self.index == 0

    def gathered(self, value: Any) -> list[Any]:
        """Returns the values of all processes in the order of their numbers, once all of them have called this.

        Args:
          value: a value that JSON can represent.

        Raises:
          NamedFailure: another process has died.
        """
        if self.count == 1:
            return [value]
        self._rounds += 1
        directory = f"{_PREFIX}/round/{self._rounds}"
        try:
            self._service.key_value_set(f"{directory}/{self.index}", json.dumps(value))
            self._service.wait_at_barrier(directory, _PATIENCE_SECONDS * 1000)
            values = self._read(directory)
        except RuntimeError as error:
            raise _lost(error) from error
        return [values[index] for index in range(self.count)]

    def from_first(self, value: Any) -> Any:
        """Returns the value of process 0, in all processes."""
        return self.gathered(value if self.is_first else None)[0]

    def publish(self, name: str, value: Any) -> None:
        """Leaves a value, which JSON can represent, for the other processes, in place of its previous one.

        Raises NamedFailure when the coordination service is gone.
        """
        if self.count == 1:
            return
        try:
            self._report(name, value)
        except RuntimeError as error:
            raise _lost(error) from error

    def published(self, name: str) -> dict[int, Any]:
        """Returns the values that processes have left under a name, by process. It waits for none of them.

        Raises NamedFailure when the coordination service is gone.
        """
        if self.count == 1:
            return {}
        try:
            return self._read(f"{_PREFIX}/{name}")
        except RuntimeError as error:
            raise _lost(error) from error

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Runs the block so that all processes succeed or all fail.

        A process leaves the block when all have come to its end. A process that failed raises its own error; the others
        raise AnotherProcessFailed, with the exit status of the first process that failed. The block can contain work
        that only process 0 does. Such blocks do not nest.
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
        """Returns the exception to raise for a failure of this process, once all processes have failed in the same way.

        If the others have not failed, this method reports the failure to them and ends this process, with a message or
        a traceback.
        """
        if self._fails_together:
            return error
        if (loss := _loss(error)) is not None:
            error = _lost(loss)
        failure = [_status(error), shown(str(error))]
        with contextlib.suppress(RuntimeError):
            self._report("failed", failure)
            failures = self._wait_for_reports("failed", self.count)
            if len(failures) == self.count:
                return error if self.is_first or failures[0] != failure else AnotherProcessFailed(failure[0])
        self._print_failure(error)
        with contextlib.suppress(RuntimeError):
            self._report("end", failure)
            self._wait_for_reports("heard", self.count - 1)
        self.end(failure[0])
        return error

    def end(self, status: int) -> None:
        """Ends this process at once with an exit status, process 0 after the others.

        The caller knows that all processes end. Process 0 waits at most the grace time for those that do not.
        """
        if self.count > 1:
            with contextlib.suppress(RuntimeError):
                self._report("gone", None)
                if self.is_first:
                    self._wait_for_reports("gone", self.count)
            if self.is_first:
                self._ended.wait(self._last_seconds)
        self._exit(status)

    def listen(self) -> None:
        """Starts a thread that ends this process when another process has failed alone."""
        threading.Thread(target=self._listen, name="other processes", daemon=True).start()

    def leave(self) -> None:
        """Waits until the other processes have come to their end too."""
        import jax

        self._ended.set()
        jax.distributed.shutdown()

    def _listen(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            try:
                failures = self._read(f"{_PREFIX}/end")
                if not failures or self.index in failures:
                    continue
                index, (status, message) = min(failures.items())
                if self.is_first:
                    print(f"error: process {index} of {self.count}: {message}", file=sys.stderr, flush=True)
                self._report("heard", None)
            except RuntimeError:  # the service is gone, and JAX's client ends this process
                return
            self.end(status)

    def _print_failure(self, error: BaseException) -> None:
        explanation = explained(error)
        if explanation is None:
            traceback.print_exception(error)
        else:
            print(f"error: process {self.index} of {self.count}: {shown(explanation[1])}", file=sys.stderr)
        sys.stderr.flush()

    def _report(self, name: str, value: Any) -> None:
        self._service.key_value_set(f"{_PREFIX}/{name}/{self.index}", json.dumps(value), allow_overwrite=True)

    def _read(self, directory: str) -> dict[int, Any]:
        """Returns the values below a directory of the service, by the number of the process that set them."""
        entries = self._service.key_value_dir_get(f"{directory}/")
        return {int(key.rpartition("/")[2]): json.loads(value) for key, value in entries}

    def _wait_for_reports(self, name: str, count: int) -> dict[int, Any]:
        """Returns the reports under a name, by process, when there are `count` of them or after the grace time."""
        deadline = time.monotonic() + self._grace_seconds
        while len(reports := self._read(f"{_PREFIX}/{name}")) < count and time.monotonic() < deadline:
            self._ended.wait(0.05)
        return reports


_current = Processes(0, 1)


def current() -> Processes:
    """Returns the processes that this program runs in. Outside of `joined` it is this one only."""
    return _current


@contextlib.contextmanager
def joined(config: ClusterConfig) -> Iterator[Processes]:
    """Joins the other processes when the environment says that there are some.

    The block must be entered before JAX creates its devices. It is left in all processes or in none; the module's
    docstring describes failures inside it.

    Raises:
      InputError: variables are missing or contradict one another.
      NamedFailure: the other processes were not found within config.initialisation_seconds.
    """
    global _current
    arguments = membership(os.environ)
    processes = None if arguments is None else _join(arguments, config)
    if processes is None:
        yield _current
        return
    _current = processes
    processes.listen()
    try:
        yield processes
    except BaseException as error:
        raised = processes.failing(error)
        processes.leave()
        if raised is error:
            raise
        raise raised from None
    processes.leave()


def refuse_several(program: str) -> None:
    """Raises InputError when a program for one process was started in several, or on a part of a TPU slice."""
    if membership(os.environ, looks_for_tpu=lambda: False) is not None:
        raise InputError(
            f"{program} works in one process, and the environment says that there are several; start it once, without "
            "srun, mpirun and JAX_NUM_PROCESSES"
        )
    if (machines := tpu_machines(os.environ)) > 1:
        raise InputError(
            f"{program} works in one process, and the TPU chips of this machine belong to a slice of {machines} "
            "machines, which they would wait for; set JAX_PLATFORMS=cpu to use the CPU of this machine, or call it on "
            "a machine with a GPU or a TPU of its own"
        )


def _join(arguments: dict[str, Any], config: ClusterConfig) -> Processes | None:
    import jax
    from jax._src import distributed  # the client has no public name; Orbax imports it from here too

    start = time.monotonic()
    found = resolved(arguments, os.environ, seconds=config.initialisation_seconds)
    if found is None or found["num_processes"] == 1:
        return None
    meet(
        found["coordinator_address"],
        found["num_processes"],
        found["process_id"],
        seconds=max(config.initialisation_seconds - (time.monotonic() - start), _SHORTEST_SECONDS),
        bind_address=found["coordinator_bind_address"],
        job=job_of(os.environ),
    )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own service would handle SIGTERM; crops_jax.training.guards handles it here, and SIGINT too.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **found,
            initialization_timeout=_JOINING_SECONDS,
            heartbeat_timeout_seconds=config.heartbeat_seconds,
        )
    except RuntimeError as error:
        raise NamedFailure(
            f"JAX did not join the processes, which had all come ({one_line(error)}); call the same command again in "
            "all of them"
        ) from error
    state = distributed.global_state
    return Processes(state.process_id, state.num_processes, state.client)


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    explanation = explained(error)
    return 1 if explanation is None else explanation[0]


def _loss(error: BaseException | None) -> BaseException | None:
    """Returns the error by which XLA or JAX reported a lost process, `error` or a cause of it; None without one."""
    while isinstance(error, RuntimeError | TimeoutError):
        text = str(error).lower()
        if isinstance(error, RuntimeError) and any(words in text for words in _LOST):
            return error
        error = error.__cause__  # the threads in which Orbax saves raise TimeoutError from such an error
    return None


def _lost(error: BaseException) -> NamedFailure:
    return NamedFailure(
        f"another process of the cluster is gone ({one_line(error)}); what was saved is kept; call the same command "
        "again in all processes to go on"
    )
