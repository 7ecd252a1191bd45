"""The choice of the groups that are held out, and the split of judgements that follows from it."""

import hashlib
from collections.abc import Iterable

import ibis
import pyarrow as pa

from crops_jax.errors import InputError
from crops_jax.hashing import split_by_hash
from data.backends.connection import Connection
from data.perspectives.log_events import LogEvents


def groups_of(connection: Connection, names: Iterable[str], events: LogEvents) -> ibis.Table:
    """Returns the table (query, group): the group of a search, or its query if it has no group.

    A judged query that nobody searched is its own group.
    """
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
    """Returns the table (group) of the held-out groups: the share `fraction` with the lowest SHA-256 of seed and group.

    At least one group is held out, and at least one stays for training. Raises InputError for fewer than two groups.
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
    """Returns the table judgements with a split in every row, and the number of judgements of each split.

    Args:
      connection: the log tables.
      held_out: the queries of held-out groups. Exactly their judgements get the split test; of the others, dev stays
        dev and the rest becomes train. None if no groups are held out: then judgements keep their split, and those
        without one get `split_by_hash`.
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
