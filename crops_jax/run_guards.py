"""What ends a training run before its last step, each with its name: a signal, a full disk, numbers that overflow."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crops_jax.checkpoint import Checkpoints
from crops_jax.errors import Interrupted, NamedFailure, is_full_disk


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


def check_finite(step: int, loss: Any, grad_norm: Any, checkpoints: Checkpoints, *, flag: str) -> None:
    """Raises NamedFailure when the loss of a step or the norm of its gradient is not finite.

    Args:
      flag: the argument whose value may be lowered.
    """
    if not (np.isfinite(loss) and np.isfinite(grad_norm)):
        checkpoints.wait()
        raise NamedFailure(
            f"step {step}: loss is {loss} and the norm of its gradient {grad_norm}; "
            f"{checkpoints.last_good()}; a lower {flag} may help, in a new run"
        )


def check_parameters(step: int, parameters: dict, checkpoints: Checkpoints, *, flag: str) -> None:
    """Raises NamedFailure when the update of `step` overflowed, so that no checkpoint holds it; see `check_finite`."""
    if not _all_finite(parameters):
        checkpoints.wait()
        raise NamedFailure(
            f"step {step}: parameters are not finite after the update, though its loss was; "
            f"{checkpoints.last_good()}; a lower {flag} may help, in a new run"
        )


@jax.jit
def _all_finite(parameters: dict) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)]).all()
