"""The parts of a training with mined negatives: refreshes within a run, and phases that are runs of their own."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crops_jax.config import NegativesConfig
from crops_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Refreshes:
    """The refreshes of the negatives of one run, in parts of its steps. Each refresh is followed by one part."""

    warmup_parts: int
    """The parts before the first refresh, in which the documents of a query are those of its record."""
    count: int
    """The number of refreshes."""
    sampler: Literal["uniform", "simans", "trisampler"] = "uniform"
    """The distribution of the negatives among the first 200 documents."""

    def settings(self, *, steps: int) -> dict[str, Any]:
        """Returns the fields of the section `negatives` of a run of `steps` steps.

        Raises InputError if a part would have no step.
        """
        warmup = steps * self.warmup_parts // (self.warmup_parts + self.count)
        every = -(-(steps - warmup) // self.count)
        if warmup < 1 or every * (self.count - 1) >= steps - warmup:
            enough = 2 * (self.warmup_parts + self.count)
            raise InputError(f"--steps {steps} are too few for {self.count} refreshes after a warm-up; try {enough}")
        return {"warmup_steps": warmup, "refresh_every_steps": every, "sampler": self.sampler}


def staleness(negatives: NegativesConfig, *, steps: int) -> dict[str, float]:
    """Returns the number of refreshes of a run, and the greatest age of its negatives in steps; nothing without one."""
    if not negatives.refresh_every_steps:
        return {}
    count = sum(negatives.refreshes_after(step) for step in range(steps))
    return {"refreshes": float(count), "largest_staleness_steps": float(negatives.refresh_every_steps - 1)}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of the training of a system that is a run of its own."""

    name: str
    """The name of the folder of the phase, different from those of the other phases of its system."""
    parts: int = 1
    """The share of the training steps, in parts of the sum over the phases of the system."""
    config: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Section -> field -> value: the fields of the configuration that differ from the base."""
    refreshes: Refreshes | None = None
    """The refreshes of its negatives; None: the documents of a query are those of its record."""
    frozen_documents: bool = False
    """Whether the vectors of the documents by the run of the phase before are frozen, and the query tower alone is
    trained on its own first documents."""
    shared: bool = False
    """Whether the phase is the first one and is made once for all systems that have it with as many steps. Its
    learning rate is that of the base, and not tuned."""


def steps_of(phases: Sequence[Phase], *, steps: int) -> list[int]:
    """Returns the number of training steps of each phase, in proportion to its parts. Their sum is `steps`.

    Raises InputError if a phase would have no step.
    """
    total, before, bounds = sum(phase.parts for phase in phases), 0, [0]
    for phase in phases:
        before += phase.parts
        bounds.append(steps * before // total)
    counts = [high - low for low, high in itertools.pairwise(bounds)]
    if min(counts) < 1:
        raise InputError(f"--steps {steps} are too few for {len(phases)} phases of training; give at least {total}")
    return counts
