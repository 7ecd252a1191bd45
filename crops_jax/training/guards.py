"""The events that end a training run before its last step: a signal, a full disk, numbers that overflow."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from crops_jax.devices import processes, sharding
from crops_jax.errors import Interrupted, NamedFailure, is_full_disk
from crops_jax.runs.checkpoints import Checkpoints


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets, so that the step under way can end; the second one raises."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            raise Interrupted("interrupted twice; the checkpoint before this step is kept; call the same command again")
        event.set()
        print("stopping after this step, with a checkpoint", file=sys.stderr, flush=True)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class StopVote:
    """A request to stop that any process may get, answered by all of them after the same step.

    A process alone answers after the step under way. Several put their answers together on the devices after each
    step and read them when the next one is under way, so that nothing waits: they stop one step later.
    """

    def __init__(self, event: threading.Event, mesh: Mesh, *, several: bool | None = None):
        """
        Args:
          event: set where this process shall stop.
          mesh: of the train step; devices of all processes.
          several: whether there are other processes; None: as it is.
        """
        self._event = event
        self._several = processes.current().count > 1 if several is None else several
        line = Mesh(mesh.devices.ravel(), ("devices",))
        self._place = NamedSharding(line, PartitionSpec("devices"))
        self._any = jax.jit(jnp.max, out_shardings=sharding.replicated(line))
        self._votes: jax.Array | None = None

    def is_due(self) -> bool:
        """Returns whether to stop after this step; must be called once after each step was started."""
        own = self._event.is_set()
        if not self._several:
            return own
        shape = (self._place.mesh.size,)
        votes = jax.make_array_from_callback(shape, self._place, lambda _: np.full(1, own, np.int32))
        before, self._votes = self._votes, self._any(votes)
        return before is not None and bool(np.asarray(before))


@contextmanager
def full_disk_is_named(checkpoints: Checkpoints) -> Iterator[None]:
    """Turns what a full disk raises into a NamedFailure that says where the last good checkpoint is."""
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
    """Steps whose loss or gradient is not finite, which a train step leaves without an update: so many are let pass.

    Attributes:
      skipped: how many there were up to now, over all interruptions of the run.
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
          skipped: those that lie behind the state from which the run goes on.
          allowed: as many may be skipped, those included.
          advice: what the user may change.
          batch: says what the batch of a step held.
        """
        self.skipped = skipped
        self._checkpoints, self._allowed, self._advice, self._batch = checkpoints, allowed, advice, batch

    def check(self, step: int, loss: Any, grad_norm: Any) -> bool:
        """Returns whether a step is not finite. Raises NamedFailure when more such steps occurred than are allowed."""
        if np.isfinite(loss) and np.isfinite(grad_norm):
            return False
        found = f"step {step}: loss is {loss} and the norm of its gradient {grad_norm}"
        if self._batch:
            found = f"{found}; {self._batch(step)}"
        if self.skipped >= self._allowed:
            self._checkpoints.wait()
            before = f"; {self.skipped} such steps were skipped before it" if self.skipped else ""
            raise NamedFailure(f"{found}{before}; {self._checkpoints.last_good()}; {self._advice}")
        self.skipped += 1
        if processes.current().is_first:
            print(f"{found}; skipped, {self.skipped} of at most {self._allowed}", file=sys.stderr, flush=True)
        return True


def check_parameters(step: int, parameters: dict, checkpoints: Checkpoints, *, flag: str) -> None:
    """Raises NamedFailure when the update of `step` overflowed, so that no checkpoint holds it.

    Args:
      flag: the argument whose value may be lowered.
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
