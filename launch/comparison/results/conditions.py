"""The conditions under which a cell was measured: time, versions and processor, without names of hosts or paths."""

import importlib.metadata
import os
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


def conditions_here(seconds: float) -> Conditions:
    """Returns the conditions of a cell that took `seconds` on this machine."""
    return Conditions(
        seconds=round(seconds, 1), packages=dict(_versions()), processor=processor(), cores=os.cpu_count() or 1
    )


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}
