"""The parameters of mining, checked: those that data.mine and data.hold_out share, and which perspectives are meant."""

from collections.abc import Collection, Sequence
from typing import Any

from crops_jax.errors import InputError

NEEDS = {
    "search_log": ("searches", "candidates"),
    "query_level": ("searches", "candidates"),
    "system_level": ("searches", "feed_views"),
    "knowledge_level": ("knowledge_documents",),
}
"""The perspectives, and the tables that each reads."""

_GREATEST = 10**9


def check_mining_parameters(arguments: Any) -> None:
    """Raises InputError where a number that several programs share is out of range."""
    for name, low, high in (("alpha", 0, 1), ("beta", -1, 1)):
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise InputError(f"--{name} {value} is not between {low} and {high}")
    for name in ("window_seconds", "feed_window_seconds", "max_feed_documents", "long_watch_seconds", "min_supporters"):
        value = getattr(arguments, name, 1)
        if not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value} must be greater than 0")
        if isinstance(value, int) and value > _GREATEST:
            raise InputError(f"--{name.replace('_', '-')} {value} must be at most {_GREATEST}")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed} must not be negative")


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
