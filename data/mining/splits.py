"""Which groups are held out, and what split that gives to judgements."""

import hashlib
from collections.abc import Iterable

import ibis
import pyarrow as pa

from crops_jax.errors import InputError
from crops_jax.hashing import split_by_hash
from data.backends.connection import Connection
from data.perspectives.log_events import LogEvents


def groups_of(connection: Connection, names: Iterable[str], events: LogEvents) -> ibis.Table:
    """query, group: a search's group, or its query where it has none; a judged query's own where nobody searched it."""
    tables = []
    if events.searches is not None:
        searches = events.searches
        tables.append(searches.select("query", group=searches.group.coalesce(searches.query)).distinct())
    if "judgements" in set(names):
        judged = connection.table("judgements").select("query").distinct()
        if tables:
            judged = judged.anti_join(tables[0], "query")
        tables.append(judged.select("query", group=judged.query))
    return ibis.union(*tables) if len(tables) > 1 else tables[0]


def held_out_groups(connection: Connection, of_query: ibis.Table, *, fraction: float, seed: int) -> ibis.Table:
    """A table with the column group: the share `fraction` of all groups, those of the least SHA-256 of seed and group.

    At least one group is held out and at least one left. Raises InputError when there is only one.
    """
    groups = of_query.select("group").distinct().to_pyarrow()["group"].to_pylist()
    if len(groups) < 2:
        raise InputError(f"--by group: there is {len(groups)} group, and one must be left to train on; use --from")
    number = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
    chosen = sorted(_in_seeded_order(groups, seed)[:number])
    return connection.create_table(
        ibis.util.gen_name("held_out"), pa.table({"group": pa.array(chosen, pa.string())}), temp=True
    )


def split_judgements(connection: Connection, held_out: ibis.Table | None) -> tuple[pa.Table, dict[str, int]]:
    """The table judgements with a split in every row, and how many there are of each.

    Args:
      connection: the log tables.
      held_out: the queries of held-out groups: their judgements are test, and no others; dev stays dev, and the rest is
        train. None when no groups are held out: judgements keep their split, and those without one get
        `split_by_hash`.
    """
    judgements = connection.table("judgements")
    if held_out is None:
        queries = judgements.filter(judgements.split.isnull()).select("query").distinct().to_pyarrow()["query"]
        by_hash = pa.array((split_by_hash(query) for query in queries.to_pylist()), pa.string())
        assigned = ibis.memtable(pa.table({"held": queries, "assigned": by_hash}))
        judgements = judgements.left_join(assigned, judgements.query == assigned.held)
        split = judgements.split.coalesce(judgements.assigned)
    else:
        held_out = held_out.select(held="query").distinct()
        judgements = judgements.left_join(held_out, judgements.query == held_out.held)
        kept = ibis.ifelse((judgements.split == "dev").fill_null(False), "dev", "train")
        split = ibis.ifelse(judgements.held.notnull(), "test", kept)
    table = judgements.select("query", "doc_id", "grade", split=split).order_by("query", "doc_id").to_pyarrow()
    counts = table.group_by("split").aggregate([("query", "count")]).to_pylist()
    return table, {row["split"]: row["query_count"] for row in sorted(counts, key=lambda row: row["split"])}


def _in_seeded_order(groups: Iterable[str], seed: int) -> list[str]:
    return sorted(groups, key=lambda group: (hashlib.sha256(f"{seed}:{group}".encode()).hexdigest(), group))
