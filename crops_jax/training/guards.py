"""Guards for the events that end a training run before its last step: a signal, a full disk, and overflow."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from crops_jax.devices import notices, processes, sharding
from crops_jax.errors import CHAIN_VARIABLE, Interrupted, NamedFailure, is_full_disk
from crops_jax.program.progress import say
from crops_jax.runs.checkpoints import Checkpoints


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Yields an event that the first SIGTERM or SIGINT sets, so that the running step can end. A second one raises.

    The SIGTERM that follows a notice of Google Cloud (crops_jax.devices.notices) is no second one.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, frame: Any) -> None:
        if event.is_set() and number == signal.SIGTERM and notices.given():
            return
        if event.is_set():
            raise Interrupted("interrupted twice; the checkpoint before this step is kept; call the same command again")
        event.set()
        say("stopping after this step, with a checkpoint")

    # A chain makes its programs ignore Ctrl-C, and sends them SIGTERM for it.
    numbers = [signal.SIGTERM] if CHAIN_VARIABLE in os.environ else [signal.SIGTERM, signal.SIGINT]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Requests(NamedTuple):
    """The requests that all processes of a run follow after the same step: to stop, and to save a checkpoint."""

    stop: bool
    save: bool


class RequestVote:
    """The requests to stop, which any process can receive, and to save, which the clock of the first process makes.

    A single process follows its requests after the running step. Several processes combine them on the devices after
    each step, and read the result while the next step runs, so that nothing waits; they follow them one step later.
    """

    def __init__(
        self,
        event: threading.Event,
        mesh: Mesh,
        *,
        save_seconds: float,
        several: bool | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
          event: an event that is set when this process receives a request to stop.
          mesh: the mesh of the train step, with the devices of all processes.
          save_seconds: the time in seconds after the start, or after the last save, at which a save is due; 0: never.
          several: whether the run has several processes; None: as the cluster of this process reports.
          now: the clock, in seconds.
        """
        self._event, self._now = event, now
        self._save_seconds = save_seconds if processes.current().is_first else 0
        self._saved_at = now()
        self._several = processes.current().count > 1 if several is None else several
        flat_mesh = Mesh(mesh.devices.ravel(), ("devices",))
        self._sharding = NamedSharding(flat_mesh, PartitionSpec("devices"))
        self._any = jax.jit(partial(jnp.max, axis=0), out_shardings=sharding.replicated(flat_mesh))
        self._votes: jax.Array | None = None

    def read(self) -> Requests:
        """Returns what to do after this step. The loop must call it once after it has started each step."""
        own = Requests(self._event.is_set(), self._is_save_due())
        if not self._several:
            return own
        shape = (self._sharding.mesh.size, len(own))
        votes = jax.make_array_from_callback(shape, self._sharding, lambda _: np.array([own], np.int32))
        before, self._votes = self._votes, self._any(votes)
        return Requests(False, False) if before is None else Requests(*map(bool, np.asarray(before)))

    def stops_now(self) -> bool:
        """Returns whether a run of one process is asked to stop. Several processes can stop after a step alone."""
        return not self._several and self._event.is_set()

    def saved(self) -> None:
        """Starts the time until the next save again; the loop calls it after each save."""
        self._saved_at = self._now()

    def _is_save_due(self) -> bool:
        if not self._save_seconds or self._now() - self._saved_at < self._save_seconds:
            return False
        self.saved()  # so that one vote makes one save, which several processes make a step later
        return True


@contextmanager
def full_disk_is_named(checkpoints: Checkpoints) -> Iterator[None]:
    """Turns the error of a full disk into a NamedFailure that names the last good checkpoint."""
    try:
        yield
    except NamedFailure:
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise NamedFailure(
            f"the disk is full ({error}); {checkpoints.last_good()}; free some space and call the same command again"
        ) from error


class NonFiniteSteps:
    """A counter of the steps whose loss or gradient is not finite. A limited number of them is skipped.

    A train step makes no update when its loss or gradient is not finite.

    Attributes:
      skipped: the number of skipped steps of the run up to now, those before its interruptions included.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        skipped: int,
        allowed: int,
        advice: str,
        batch: Callable[[int], str] | None = None,
    ):
        """
        Args:
          checkpoints: the checkpoints of the run, for messages.
          skipped: the number of steps that were skipped before the state from which the run resumes.
          allowed: the maximum number of skipped steps, with these included.
          advice: the end of the message: what the user can change.
          batch: a function that describes the batch of a step.
        """
        self.skipped = skipped
        self._checkpoints, self._allowed, self._advice, self._batch = checkpoints, allowed, advice, batch

    def check(self, step: int, loss: Any, grad_norm: Any) -> bool:
        """Returns whether a step is not finite. Raises NamedFailure when more such steps occurred than are allowed."""
        if np.isfinite(loss) and np.isfinite(grad_norm):
            return False
        message = f"step {step}: loss is {loss} and the norm of its gradient {grad_norm}"
        if self._batch:
            message = f"{message}; {self._batch(step)}"
        if self.skipped >= self._allowed:
            self._checkpoints.wait()
            before = f"; {self.skipped} such steps were skipped before it" if self.skipped else ""
            raise NamedFailure(f"{message}{before}; {self._checkpoints.last_good()}; {self._advice}")
        self.skipped += 1
        if processes.current().is_first:
            say(f"{message}; skipped, {self.skipped} of at most {self._allowed}")
        return True


def check_parameters(step: int, parameters: dict, checkpoints: Checkpoints, *, flag: str) -> None:
    """Raises NamedFailure when the update of `step` overflowed, so that no checkpoint holds its parameters.

    Args:
      step: the number of the step.
      parameters: the parameters after its update.
      checkpoints: the checkpoints of the run, for the message.
      flag: the command-line flag whose lower value may help.
    """
    if not _all_finite(parameters):
        checkpoints.wait()
        raise NamedFailure(
            f"step {step}: parameters are not finite after the update, though its loss was; "
            f"{checkpoints.last_good()}; a lower {flag} may help, in a new run"
        )


@jax.jit
def _all_finite(parameters: dict) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)]).all()
