"""The parameters of mining, which check themselves, and which perspectives are meant."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from crops_jax.errors import InputError
from data.labels.assign_levels import parse_levels
from data.perspectives import query_level, system_level
from data.perspectives.log_events import LONG_WATCH_SECONDS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NEEDS = {
    "search_log": ("searches", "candidates"),
    "query_level": ("searches", "candidates"),
    "system_level": ("searches", "feed_views"),
    "knowledge_level": ("knowledge_documents",),
}
"""The perspectives, and the tables that each reads."""

_GREATEST = 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReformulationParameters:
    """How candidates out of reformulations are found and decided on: what data.mine and data.hold_out share.

    Raises InputError, naming the flag, where a value is out of range.
    """

    similarity_encoder: str | None = None
    """RUN or model folder whose query embeddings say how alike two queries are; by default character trigrams do."""
    alpha: float = 0.6
    """A candidate passes when theta > alpha; in data.hold_out it is a test reformulation then."""
    beta: float = query_level.BETA
    """The least similarity of a query and its reformulation."""
    window_seconds: int = query_level.WINDOW_SECONDS
    """A later query of the same user within this time is a reformulation."""
    only_unsatisfied: bool = False
    """Reformulations only of searches of which nothing was watched long."""
    long_watch_seconds: float = LONG_WATCH_SECONDS
    """Watched at least this long counts as satisfied, in all perspectives."""
    seed: int = 0
    """Of the lexical discriminator's random negatives and, in data.hold_out, of the choice of groups."""

    def __post_init__(self) -> None:
        _check_range("alpha", self.alpha, 0, 1)
        _check_range("beta", self.beta, -1, 1)
        _check_positive("window_seconds", self.window_seconds)
        _check_positive("long_watch_seconds", self.long_watch_seconds)
        if self.seed < 0:
            raise InputError(f"--seed {self.seed} must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiningParameters(ReformulationParameters):
    """What decides which labels data.mine finds in a log."""

    min_supporters: int = 1
    """A perspective keeps a (query, document) pair that at least so many distinct users support, and nothing comes of
    queries that fewer users typed. 5 is advisable where labels leave the hands of those who may see the logs."""
    feed_window_seconds: int = system_level.FEED_WINDOW_SECONDS
    """Feed documents viewed at most this long before or after a query are its candidates."""
    max_feed_documents: int = system_level.MAX_FEED_DOCUMENTS
    """At most so many feed documents of a user and query, nearest in time first."""
    feed_long_watch_only: bool = False
    """Only feed documents that were watched long."""
    levels: str = "hla"
    """Levels of sources: hla, query_level_at_4, binary, or SOURCE=LEVEL,... for those that differ from hla."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("feed_window_seconds", "max_feed_documents", "min_supporters"):
            _check_positive(name, getattr(self, name))
        parse_levels(self.levels)


def by_flag(arguments: "DataclassInstance") -> dict[str, Any]:
    """The value of each flag, as manifests keep them: those of the field `parameters` stand among the others."""
    own = dataclasses.asdict(arguments)
    parameters = own.pop("parameters")
    return own | parameters


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"--{name} {value} is not between {low} and {high}")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"--{name.replace('_', '-')} {value} must be greater than 0")
    if isinstance(value, int) and value > _GREATEST:
        raise InputError(f"--{name.replace('_', '-')} {value} must be at most {_GREATEST}")


def wanted_perspectives(text: str | None) -> list[str]:
    """The perspectives of a comma list, all of them for None, in the order of NEEDS. Raises InputError."""
    if text is None:
        return list(NEEDS)
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NEEDS]:
        raise InputError(f"--perspectives {text}: {unknown[0]!r} is none of {', '.join(NEEDS)}")
    if not wanted:
        raise InputError(f"--perspectives {text!r} names none of {', '.join(NEEDS)}")
    return [name for name in NEEDS if name in wanted]


def missing_tables(wanted: Sequence[str], tables: Collection[str]) -> dict[str, str]:
    """By perspective that cannot be mined from the tables that are there, why."""
    missing = {name: [table for table in NEEDS[name] if table not in tables] for name in wanted}
    return {name: f"table {absent[0]} is not in the logs" for name, absent in missing.items() if absent}
