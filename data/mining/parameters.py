"""The parameters of mining, which check their own values, and the perspectives that a call mines.

Theta is the relevance discriminator; alpha is the threshold that its probability must exceed.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath
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
"""The perspectives, each with the tables that it reads."""

_GREATEST = 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReformulationParameters:
    """The parameters that data.mine and data.hold_out share: how reformulations give candidates, and which pass.

    Raises InputError, which names the flag, if a value is out of range.
    """

    similarity_encoder: InputPath | None = None
    """A RUN or model folder. The cosine of its query embeddings is the similarity of two queries; by default character
    trigrams are compared."""
    alpha: float = 0.6
    """The threshold that the discriminator's probability must exceed: a candidate with theta > alpha passes. In
    data.hold_out, a pair that passes is a test reformulation."""
    beta: float = query_level.BETA
    """The minimum similarity of a query and its reformulation."""
    window_seconds: int = query_level.WINDOW_SECONDS
    """A later query of the same user is a reformulation if it follows within this time."""
    max_later_searches: int = query_level.MAX_LATER_SEARCHES
    """The maximum number of later searches of the same user for each search; the nearest in time are kept. It bounds
    the work for an id that many people or a robot share."""
    max_searches_per_hour: int | None = None
    """Set aside users with more searches than this in any hour (UTC), such as the id of all who are not logged in: the
    query level and the system level, which join the events of one user, leave them out."""
    only_unsatisfied: bool = False
    """Use only reformulations of searches in which no document was watched long."""
    long_watch_seconds: float = LONG_WATCH_SECONDS
    """The minimum watch time that counts as watched long (a satisfied user), in all perspectives."""
    relevant_grade: float | None = None
    """The minimum grade of a relevant judgement, for a discriminator that is fitted on judgements and for the precision
    of each source of positives. By default it is that which the source of the logs declares or, without one, the lowest
    grade above 0."""
    seed: int = 0
    """The seed of the lexical discriminator's random documents and, in data.hold_out, of the choice of groups."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "perspective": (
            "window_seconds",
            "max_later_searches",
            "max_searches_per_hour",
            "only_unsatisfied",
            "long_watch_seconds",
            "similarity_encoder",
            "beta",
        ),
        "relevance": ("alpha", "relevant_grade", "seed"),
    }

    def __post_init__(self) -> None:
        _check_range("alpha", self.alpha, 0, 1)
        _check_range("beta", self.beta, -1, 1)
        _check_positive("window_seconds", self.window_seconds)
        _check_positive("max_later_searches", self.max_later_searches)
        if self.max_searches_per_hour is not None:
            _check_positive("max_searches_per_hour", self.max_searches_per_hour)
        _check_positive("long_watch_seconds", self.long_watch_seconds)
        if self.seed < 0:
            raise InputError(f"--seed {self.seed} must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiningParameters(ReformulationParameters):
    """The parameters that decide which labels data.mine makes from a log."""

    min_supporters: int = 1
    """The minimum number of distinct users who support a (query, document) pair; a perspective leaves out other pairs.
    Queries that fewer users typed get no labels. Use 5 or more if people who must not see the logs receive the
    labels."""
    feed_window_seconds: int = system_level.FEED_WINDOW_SECONDS
    """The maximum time between a query and a view in the feed, before or after it, that makes the document a
    candidate."""
    max_feed_documents: int = system_level.MAX_FEED_DOCUMENTS
    """The maximum number of feed documents for a user and a query; the nearest in time are kept."""
    feed_long_watch_only: bool = False
    """Use only feed documents that were watched long."""
    alpha_precision: float | None = None
    """The share of the judged candidates above alpha that must be relevant, such as 0.9. Alpha is then the smallest
    threshold with this precision on the judgements that at most 2 % of random pairs exceed, and --alpha is not used.
    The logs must have judgements of candidates."""
    levels: str = "hla"
    """The level that each source of labels gets: hla (hierarchical label assignment), query_level_at_4, binary, or
    SOURCE=LEVEL,... for the sources whose level differs from hla."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "perspective": (
            *ReformulationParameters.FLAG_GROUPS["perspective"],
            "min_supporters",
            "feed_window_seconds",
            "max_feed_documents",
            "feed_long_watch_only",
            "levels",
        ),
        "relevance": (*ReformulationParameters.FLAG_GROUPS["relevance"], "alpha_precision"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("feed_window_seconds", "max_feed_documents", "min_supporters"):
            _check_positive(name, getattr(self, name))
        if self.alpha_precision is not None:
            _check_range("alpha-precision", self.alpha_precision, 0, 1)
        parse_levels(self.levels)


def by_flag(arguments: "DataclassInstance") -> dict[str, Any]:
    """Returns the value of each flag, as manifests keep them: the fields of `parameters` are on the top level."""
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
    """Returns the perspectives of a comma-separated list, or all for None, in the order of NEEDS.

    Raises InputError if a name is unknown or the list is empty.
    """
    if text is None:
        return list(NEEDS)
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NEEDS]:
        raise InputError(f"--perspectives {text}: {unknown[0]!r} is none of {', '.join(NEEDS)}")
    if not wanted:
        raise InputError(f"--perspectives {text!r} names none of {', '.join(NEEDS)}")
    return [name for name in NEEDS if name in wanted]


def missing_tables(wanted: Sequence[str], tables: Collection[str]) -> dict[str, str]:
    """Returns the reason for each perspective that cannot be mined because a table is missing."""
    missing = {name: [table for table in NEEDS[name] if table not in tables] for name in wanted}
    return {name: f"table {absent[0]} is not in the logs" for name, absent in missing.items() if absent}
