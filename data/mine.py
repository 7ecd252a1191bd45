"""Log tables to the label table: perspectives, discriminator, hierarchical label assignment."""

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any, Literal

import ibis

from crops_jax import program
from crops_jax.artifacts import output_directory, write_text
from crops_jax.discriminator import alpha_sweep
from crops_jax.errors import InputError
from crops_jax.similarity import open_similarity
from data.assign_levels import assign_levels, parse_levels, write_labels
from data.discriminator_pairs import train_judgements
from data.pair_scores import similarity_table, theta_table
from data.perspectives import judged, knowledge_level, query_level, search_log, system_level
from data.perspectives.log_events import LONG_WATCH_SECONDS, LogEvents, parse_time, read_events
from data.table_damage import named_lack_of_room
from data.tables import LogTables, open_logs
from data.theta import FOLDER, Theta, fit_theta, open_theta, reads_past, refuse_later

NEEDS = {
    "search_log": ("searches", "candidates"),
    "query_level": ("searches", "candidates"),
    "system_level": ("searches", "feed_views"),
    "knowledge_level": ("knowledge_documents",),
}
"""The perspectives, and the tables that each reads."""

_GREATEST = 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class MineArguments:
    logs: str
    """Directory of log tables."""
    output: str
    """Directory to write labels.parquet and alpha_sweep.json into."""
    overwrite: bool = False
    """Replace the output if it exists."""
    backend: Literal["duckdb", "pyspark"] = "duckdb"
    """What runs the joins."""
    spark_master: str = "local[*]"
    """Where Spark runs, with --backend pyspark."""
    memory_limit: str | None = None
    """What DuckDB may hold in memory, such as 4GB; more is spilled to disk. By default 80 % of the machine."""
    until: str | None = None
    """Read only what happened before this time (exclusive, ISO 8601, UTC without an offset)."""
    perspectives: str | None = None
    """Comma list of search_log (clicks and all negatives), query_level, system_level, knowledge_level. By default all
    that the tables allow."""
    discriminator: str | None = None
    """Folder of a discriminator. By default LOGS/discriminator; without one a lexical one is fitted on LOGS."""
    similarity_encoder: str | None = None
    """RUN or model folder whose query embeddings say how alike two queries are; by default character trigrams do."""
    judgements_as_labels: bool = False
    """Take judgements of split train as labels, for sources without a log."""
    grade_levels: str | None = None
    """The least grade of each level, as in 0=3,1=4; needed with --judgements-as-labels."""
    alpha: float = 0.6
    """A candidate of query_level or system_level passes when theta > alpha."""
    beta: float = query_level.BETA
    """The least similarity of a query and its reformulation."""
    window_seconds: int = query_level.WINDOW_SECONDS
    """A later query of the same user within this time is a reformulation."""
    only_unsatisfied: bool = False
    """Reformulations only of searches of which nothing was watched long."""
    feed_window_seconds: int = system_level.FEED_WINDOW_SECONDS
    """Feed documents viewed at most this long before or after a query are its candidates."""
    max_feed_documents: int = system_level.MAX_FEED_DOCUMENTS
    """At most so many feed documents of a user and query, nearest in time first."""
    feed_long_watch_only: bool = False
    """Only feed documents that were watched long."""
    long_watch_seconds: float = LONG_WATCH_SECONDS
    """Watched at least this long counts as satisfied, in all perspectives."""
    levels: str = "hla"
    """Levels of sources: hla, query_level_at_4, binary, or SOURCE=LEVEL,... for those that differ from hla."""
    seed: int = 0
    """Of the lexical discriminator's random negatives."""


def mine(arguments: MineArguments) -> dict[str, Any]:
    """Mines positives and negatives from log tables and writes the label table."""
    wanted = _checked(arguments)
    logs = open_logs(arguments.logs)
    encoder = arguments.similarity_encoder
    inputs = {
        "logs": arguments.logs,
        "discriminator": arguments.discriminator,
        "similarity_encoder": encoder if encoder and Path(encoder).exists() else None,
    }
    mined: dict[str, Any] = {}
    with (
        output_directory(
            arguments.output,
            overwrite=arguments.overwrite,
            program="data.mine",
            kind="labels",
            arguments=arguments,
            inputs=inputs,
            mined=mined,
        ) as out,
        named_lack_of_room(),
    ):
        mined.update(_mine(arguments, logs, wanted, out))
    return {"labels": arguments.output, **mined}


def _checked(arguments: MineArguments) -> list[str]:
    """The perspectives asked for, those that there are when none is named."""
    if arguments.backend == "pyspark":
        raise InputError("--backend pyspark is not available yet; leave it out to run on DuckDB")
    check_mining_parameters(arguments)
    parse_levels(arguments.levels)
    if arguments.judgements_as_labels != (arguments.grade_levels is not None):
        raise InputError("--judgements-as-labels and --grade-levels go together, as in --grade-levels 0=3,1=4")
    if arguments.perspectives is None:
        return list(NEEDS)
    wanted = [name.strip() for name in arguments.perspectives.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NEEDS]:
        raise InputError(f"--perspectives {arguments.perspectives}: {unknown[0]!r} is none of {', '.join(NEEDS)}")
    if not wanted:
        raise InputError(f"--perspectives {arguments.perspectives!r} names none of {', '.join(NEEDS)}")
    return [name for name in NEEDS if name in wanted]


def check_mining_parameters(arguments: Any) -> None:
    """Raises InputError where a number that several programs share is out of range."""
    for name, low, high in (("alpha", 0, 1), ("beta", -1, 1)):
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise InputError(f"--{name} {value} is not between {low} and {high}")
    for name in ("window_seconds", "feed_window_seconds", "max_feed_documents", "long_watch_seconds"):
        value = getattr(arguments, name, 1)
        if not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value} must be greater than 0")
        if isinstance(value, int) and value > _GREATEST:
            raise InputError(f"--{name.replace('_', '-')} {value} must be at most {_GREATEST}")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed} must not be negative")


def _mine(arguments: MineArguments, logs: LogTables, wanted: list[str], out: Path) -> dict[str, Any]:
    connection = logs.connect(memory_limit=arguments.memory_limit)
    until = None if arguments.until is None else parse_time(arguments.until, argument="--until")
    events = read_events(connection, logs.names, long_watch_seconds=arguments.long_watch_seconds).before(until)
    skipped = {
        name: f"table {missing[0]} is not in the logs"
        for name in wanted
        if (missing := [table for table in NEEDS[name] if table not in logs.names])
    }
    present = [name for name in wanted if name not in skipped]
    if until is not None and events.searches is not None and not _count(events.searches):
        raise InputError(f"--until {arguments.until}: no search in {logs.path} happened before; choose a later time")
    outcome: dict[str, Any] = {"skipped": skipped, "discriminator": None}
    rows = []
    if "search_log" in present:
        rows.append(search_log.positives_and_negatives(events))
    if {"query_level", "system_level"} & set(present):
        found, passed = _decided_by_theta(arguments, connection, logs, events, present, until)
        rows.extend(found)
        write_text(out / "alpha_sweep.json", json.dumps(passed.pop("sweep"), indent=2) + "\n")
        outcome.update(passed)
    if "knowledge_level" in present:
        rows.append(knowledge_level.positives(connection.table("knowledge_documents")))
    if arguments.judgements_as_labels:
        found, counts = _judged(arguments, connection, logs)
        rows.append(found)
        outcome["judgements"] = counts
    if not rows:
        raise InputError(
            f"nothing to mine in {logs.path}: {'; '.join(f'{name}: {why}' for name, why in skipped.items())}. Add the "
            "tables, or take judgements with --judgements-as-labels --grade-levels"
        )
    labels = assign_levels(ibis.union(*rows) if len(rows) > 1 else rows[0], levels=parse_levels(arguments.levels))
    labels = labels.cache()
    if not _count(labels):
        raise InputError(f"nothing was mined from {logs.path}: its rows give neither positives nor negatives")
    write_labels(connection, labels, out)
    return {**_counts(labels), **outcome}


def _decided_by_theta(
    arguments: MineArguments,
    connection,
    logs: LogTables,
    events: LogEvents,
    present: list[str],
    until: datetime.datetime | None,
) -> tuple[list[ibis.Table], dict[str, Any]]:
    """Rows of P1 and P2, whose candidate pairs are scored together and once; counts and the sweep of alpha."""
    theta, described = _theta(arguments, connection, logs, events, until)
    candidates: dict[str, ibis.Table] = {}
    outcome: dict[str, Any] = {"discriminator": described}
    if "query_level" in present:
        candidates["query_level"], outcome["query_level"] = query_level_candidates(arguments, connection, events)
    if "system_level" in present:
        candidates["system_level"] = system_level.candidates(
            events,
            feed_window_seconds=arguments.feed_window_seconds,
            max_feed_documents=arguments.max_feed_documents,
            only_long_watch=arguments.feed_long_watch_only,
        ).cache()
        outcome["system_level"] = {}
    pairs = [table.select("query", "doc_id") for table in candidates.values()]
    scores = theta_table(connection, ibis.union(*pairs) if len(pairs) > 1 else pairs[0], theta.discriminator)
    positives = {"query_level": query_level.positives, "system_level": system_level.positives}
    sweep: dict[str, Any] = {"alpha": arguments.alpha}
    rows = []
    for name, table in candidates.items():
        rows.append(positives[name](table, scores, alpha=arguments.alpha))
        scored = scores.semi_join(table, ["query", "doc_id"])
        sweep[name] = alpha_sweep(scored.score.to_pyarrow().to_numpy(zero_copy_only=False))
        outcome[name]["candidates"] = _count(scored)
        outcome[name]["passing"] = _count(scored.filter(scored.score > arguments.alpha))
    return rows, {**outcome, "sweep": sweep}


def query_level_candidates(arguments: Any, connection, events: LogEvents) -> tuple[ibis.Table, dict[str, int]]:
    """P1's candidates before theta decides, and how many there were on the way.

    Args:
      arguments: window_seconds, only_unsatisfied, similarity_encoder and beta, as in MineArguments.
      connection: the log tables.
      events: the part of them to read.
    """
    pairs = query_level.reformulations(
        events, window_seconds=arguments.window_seconds, only_unsatisfied=arguments.only_unsatisfied
    ).cache()
    similarity = similarity_table(connection, pairs, open_similarity(arguments.similarity_encoder))
    found = query_level.candidates(events, pairs, similarity, beta=arguments.beta).cache()
    every = query_level.candidates(events, pairs, similarity, beta=-2.0)
    counts = {
        "reformulations": _count(pairs),
        "query_pairs": _count(similarity),
        "similar_query_pairs": _count(similarity.filter(similarity.similarity >= arguments.beta)),
        "candidates_of_any_similarity": _count(every.select("query", "doc_id").distinct()),
    }
    return found, counts


def _theta(
    arguments: MineArguments, connection, logs: LogTables, events: LogEvents, until: datetime.datetime | None
) -> tuple[Theta, dict[str, Any]]:
    kept = logs.path / FOLDER
    why = "no discriminator was given or kept in the logs"
    if arguments.discriminator is not None:
        theta = open_theta(arguments.discriminator)
        refuse_later(theta, arguments.discriminator, until, argument="--until")
        return theta, {"from": "--discriminator", **theta.fitted}
    if kept.is_dir():
        theta = open_theta(kept)
        if not reads_past(theta, until):
            return theta, {"from": f"LOGS/{FOLDER}", **theta.fitted}
        why = f"LOGS/{FOLDER} read searches past --until"
    theta = fit_theta(connection, logs, events, until=until, seed=arguments.seed)
    return theta, {"from": f"fitted here, since {why}", **theta.fitted}


def _judged(arguments: MineArguments, connection, logs: LogTables) -> tuple[ibis.Table, dict[str, int]]:
    if "judgements" not in logs.names:
        raise InputError(f"--judgements-as-labels: table judgements is not in {logs.path}")
    assert arguments.grade_levels is not None
    steps = judged.parse_grade_levels(arguments.grade_levels)
    train = train_judgements(connection)
    known = train.semi_join(connection.table("documents"), "doc_id")
    rows = judged.labels(known, steps)
    counts = {
        "without_split": _count(train.filter(train.split.isnull())),
        "unknown_documents": _count(train) - _count(known),
        "below_grade_levels": _count(known) - _count(rows),
    }
    return rows, counts


def _counts(labels: ibis.Table) -> dict[str, Any]:
    by = labels.group_by("source", "level").agg(rows=labels.count()).order_by("source", "level").to_pyarrow()
    by_source: dict[str, int] = {}
    by_level: dict[str, int] = {}
    for row in by.to_pylist():
        by_source[row["source"]] = by_source.get(row["source"], 0) + row["rows"]
        by_level[str(row["level"])] = by_level.get(str(row["level"]), 0) + row["rows"]
    return {
        "rows": sum(by_source.values()),
        "queries": int(labels.query.nunique().to_pyarrow().as_py()),
        "by_source": by_source,
        "by_level": dict(sorted(by_level.items())),
    }


def _count(table: ibis.Table) -> int:
    return int(table.count().to_pyarrow().as_py())


if __name__ == "__main__":
    program.run(mine, example="python -m data.mine --logs split --output labels --perspectives search_log,query_level")
