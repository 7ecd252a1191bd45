"""The conditions under which a cell was measured: time, versions and processor, without names of hosts or paths."""

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from crops_jax.devices.processor import processor

PACKAGES = ("jax", "flax", "numpy")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a measurement."""

    seconds: float
    """The wall-clock time of the call that finished the cell: its training and evaluation, and at the first seed also
    the training runs that choose the learning rate. What an interrupted call had done before is not included."""
    packages: dict[str, str]
    """Versions by package name."""
    processor: str
    cores: int
    fingerprints: dict[str, str]
    """The fingerprints of the records and other data that training read. They differ between machines where
    floating-point sums differ, so they decide whether a cell is finished only on the same kind of machine."""


def conditions_here(seconds: float, *, fingerprints: Mapping[str, str]) -> Conditions:
    """Returns the conditions of a cell that took `seconds` on this machine and had inputs of these fingerprints."""
    return Conditions(
        seconds=round(seconds, 1),
        packages=dict(_versions()),
        processor=processor(),
        cores=os.cpu_count() or 1,
        fingerprints=dict(fingerprints),
    )


def is_superseded(stored: Conditions, here: Conditions) -> bool:
    """Returns whether a result has other fingerprints than the same inputs have here, on the same kind of machine.

    Then the labels were made by other code. On another kind of machine they differ by rounding.
    """
    same_machine = all(getattr(stored, name) == getattr(here, name) for name in ("processor", "cores", "packages"))
    return same_machine and stored.fingerprints != here.fingerprints


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}
