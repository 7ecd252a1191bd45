"""The phases of a system: each one mines negatives, writes records, and trains from the run of the phase before it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crops_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """The negatives of a phase, as launch.mine_negatives adds them to the labels of the system."""

    ranked_by: Literal["bm25", "previous_run"]
    """The ranking: BM25, or the run of the phase before."""
    flags: tuple[str, ...]
    """The flags of launch.mine_negatives that select documents of the ranking."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of the training of a system."""

    name: str
    """The name of the folder of the phase, different from those of the other phases of its system."""
    parts: int = 1
    """The share of the training steps, in parts of the sum over the phases of the system."""
    config: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Section -> field -> value: the fields of the configuration that differ from the base."""
    negatives: Negatives | None = None
    """None: the negatives that the labels of the system have."""
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


def staleness(phases: Sequence[Phase], *, steps: int) -> dict[str, float]:
    """Returns the number of times that negatives were mined with a run, and how old they became at most, in steps.

    Negatives are as old as the number of steps since their refresh. Both are absent without a refresh.
    """
    counts = steps_of(phases, steps=steps)
    ages = [
        count
        for phase, count in zip(phases, counts, strict=True)
        if phase.negatives is not None and phase.negatives.ranked_by == "previous_run"
    ]
    return {"refreshes": float(len(ages)), "largest_staleness_steps": float(max(ages))} if ages else {}
