"""Holds out a later period, or whole groups, of the log tables for testing."""

import dataclasses
import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import ibis
import pyarrow as pa
import tyro

from crops_jax import program
from crops_jax.artifacts import check_output, new_manifest, write_manifest
from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath, LocalPath, OutputPath
from data.backends.connection import Connection
from data.mining.evidence import count, reformulation_supports
from data.mining.output import mining_inputs, mining_output, open_mined_logs
from data.mining.parameters import ReformulationParameters, by_flag
from data.mining.relevance.theta import (
    FOLDER,
    Theta,
    fit_theta,
    open_theta,
    refuse_later,
    refuse_other_split,
    save_theta,
)
from data.mining.relevance.training_pairs import declared_relevant_grade
from data.mining.scores import forget, remembering, theta_table
from data.mining.splits import groups_of, held_out_groups, split_judgements
from data.perspectives.log_events import LogEvents, parse_time, read_events
from data.tables import LogTables, OnBadRows, copy_table, open_logs, write_table
from data.tables.truth import copy_truth, has_truth, read_truth


@dataclasses.dataclass(frozen=True, kw_only=True)
class HoldOutArguments:
    """The arguments of data.hold_out: the logs, the output and the part that is held out."""

    logs: InputPath
    """The directory of log tables."""
    output: OutputPath
    """The directory to write: log tables of the training part, and the test tables."""
    overwrite: bool = False
    """Replace the output if it exists."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Hold out the events at this time or later (ISO 8601; UTC if it has no offset)."""
    fraction: float | None = None
    """Hold out this share of the groups. It is needed with --by group."""
    by: Literal["group", "split"] | None = None
    """With "group", whole groups are held out: the group is the column group of searches, or the query if a search has
    no group or the logs have no searches. With "split", the test part is the split test of the judgements; this is for
    sources without a search log."""
    discriminator: InputPath | None = None
    """The folder of a relevance discriminator (theta) that was not fitted on the held-out part. By default a lexical
    discriminator is fitted on the training part."""
    reformulations_by: Literal["discriminator", "truth"] = "discriminator"
    """Who decides which documents that were consumed after a reformulation are relevant and enter test_reformulations.
    "truth" is for a generated world: the test then depends neither on the discriminator, which also decides the
    positives of the training part, nor on beta, the minimum similarity of the two queries."""
    score_cache: LocalPath | None = None
    """The directory of a cache of a cross-encoder's scores, which several calls can share. With it, an interrupted call
    does not score the same pairs again. The default is OUTPUT.scores, which is removed when the output is complete."""
    parameters: Annotated[ReformulationParameters, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=ReformulationParameters
    )
    """The parameters of mining; each of them is a flag."""
    memory_limit: str | None = None
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("logs", "on_bad_rows"),
        "output": ("output", "overwrite"),
        "split": ("from_", "fraction", "by", "reformulations_by"),
        "relevance": ("discriminator",),
        "advanced": ("score_cache", "memory_limit"),
    }


def hold_out(arguments: HoldOutArguments) -> dict[str, Any]:
    """Writes log tables of the events before a time (or outside the held-out groups), and test tables of the rest.

    test_clicks holds the positives of the held-out click log (click test, CT). test_reformulations holds the documents
    that users consumed in it after a reformulation, as the query level of data.mine finds them (query reformulation
    test, QR). Judgements keep their split; those without one get it by group, or by the SHA-256 of the query modulo 10
    (0 to 7 train, 8 dev, 9 test). The relevance discriminator (theta) is fitted only on the
    training part and written to OUTPUT/discriminator; data.mine uses it by default. The truth of a generated world is
    copied unread.
    """
    _check(arguments)
    check_output(arguments.output, overwrite=arguments.overwrite, inputs={"logs": arguments.logs})
    logs = open_mined_logs(arguments.logs, output=arguments.output, on_bad_rows=arguments.on_bad_rows)
    _check_fits(arguments, logs)
    inputs = mining_inputs(
        logs=arguments.logs,
        discriminator=arguments.discriminator,
        similarity_encoder=arguments.parameters.similarity_encoder,
    )
    held_out: dict[str, Any] = {}
    with mining_output(
        arguments.output,
        program="data.hold_out",
        kind="logs",
        arguments=by_flag(arguments),
        inputs=inputs,
        overwrite=arguments.overwrite,
        held_out=held_out,
    ) as out:
        held_out.update(_hold_out(arguments, logs, inputs, out) | logs.outcome)
    forget(output=arguments.output, score_cache=arguments.score_cache)
    return {"split": arguments.output, **held_out}


def _check(arguments: HoldOutArguments) -> None:
    by_time, by = arguments.from_ is not None, arguments.by
    if by_time == (by is not None):
        raise InputError("choose one way to hold out: --from TIME, --fraction F --by group, or --by split")
    if (arguments.fraction is not None) != (by == "group"):
        raise InputError("--fraction and --by group go together")
    if arguments.fraction is not None and not 0 < arguments.fraction < 1:
        raise InputError(f"--fraction {arguments.fraction} is not between 0 and 1")
    if arguments.reformulations_by == "truth" and not has_truth(arguments.logs):
        raise InputError(
            f"--reformulations-by truth: {arguments.logs} has no truth, which data.simulate writes; "
            "leave the flag out, so that the discriminator decides"
        )


def _check_fits(arguments: HoldOutArguments, logs: LogTables) -> None:
    if arguments.from_ is not None and "searches" not in logs.names:
        raise InputError(
            f"--from: {logs.path} has no table searches, so it has no times; use --by split for the split of the "
            "judgements, or --fraction F --by group to draw whole queries"
        )
    if arguments.by == "split":
        splits = set()
        if "judgements" in logs.names:
            splits = set(logs.read("judgements", ["split"])["split"].unique().to_pylist())
        if "searches" in logs.names or not {"train", "test"} <= splits:
            raise InputError(
                f"--by split needs logs without searches whose judgements have the splits train and test; found "
                f"the tables {', '.join(sorted(logs.names))} and splits {sorted(map(str, splits))}; "
                "use --from or --by group"
            )


def _hold_out(arguments: HoldOutArguments, logs: LogTables, inputs: dict[str, Any], out: Path) -> dict[str, Any]:
    connection = logs.connect(memory_limit=arguments.memory_limit)
    events = read_events(connection, logs.names, long_watch_seconds=arguments.parameters.long_watch_seconds)
    time = None if arguments.from_ is None else parse_time(arguments.from_, argument="--from")
    groups = held_out_queries = None
    outcome: dict[str, Any] = {}
    if arguments.fraction is not None:
        query_groups = groups_of(connection, logs.names, events)
        groups = held_out_groups(connection, query_groups, fraction=arguments.fraction, seed=arguments.parameters.seed)
        held_out_queries = query_groups.semi_join(groups, "group").select("query")
        outcome["groups"] = {"all": count(query_groups.select("group").distinct()), "held_out": count(groups)}
    train, test = events, LogEvents(None, None, None)
    if events.searches is not None:
        train, test = _split_events(arguments, logs, events, time, groups)
        outcome["searches"] = {"train": _count_searches(train), "test": _count_searches(test)}
        outcome.update(_write_log(connection, logs, train, time, out))
    judged = None
    if "judgements" in logs.names:
        judged, outcome["judgements"] = split_judgements(connection, held_out_queries)
        write_table(out, "judgements", judged)
    copy_table(logs, "documents", out)
    copy_truth(logs.path, out)
    if "knowledge_documents" in logs.names:
        outcome["knowledge_documents"] = _write_knowledge(connection, train, judged, out)

    if train.impressions is not None:
        # From here on, only the written training part is read, so that no held-out event can reach the discriminator.
        split = open_logs(out)
        theta = _theta(arguments, split, logs, time)
        save_theta(theta, out / FOLDER)
        write_manifest(
            out / FOLDER,
            new_manifest(
                program="data.hold_out",
                kind="discriminator",
                arguments=by_flag(arguments),
                inputs=inputs,
                fitted=theta.fitted,
            ),
        )
        outcome["discriminator"] = theta.fitted
        outcome.update(_write_tests(arguments, connection, test, theta, out))
    return outcome


def _split_events(
    arguments: HoldOutArguments,
    logs: LogTables,
    events: LogEvents,
    time: datetime.datetime | None,
    groups: ibis.Table | None,
) -> tuple[LogEvents, LogEvents]:
    """Returns the training part and the test part. Raises InputError if one of them is empty."""
    searches = events.searches
    assert searches is not None
    if groups is None:
        train, test = events.before(time), events.only(searches.filter(searches.time >= time))
    else:
        grouped = searches.mutate(group=searches.group.coalesce(searches.query))
        train = events.only(searches.semi_join(grouped.anti_join(groups, "group"), "search_id"))
        test = events.only(searches.semi_join(grouped.semi_join(groups, "group"), "search_id"))
    span = searches.agg(first=searches.time.min(), last=searches.time.max()).to_pyarrow().to_pylist()[0]
    for part, name, part_events in (("training", "earlier", train), ("test", "later", test)):
        if not _count_searches(part_events):
            reason = f"--from {arguments.from_}: no search is {name}" if groups is None else "no group is left"
            raise InputError(
                f"{reason}, so the {part} part is empty; the searches of {logs.path} run from {span['first']} to "
                f"{span['last']}; choose another time or fraction"
            )
    return train, test


def _write_log(
    connection: Connection, logs: LogTables, train: LogEvents, time: datetime.datetime | None, out: Path
) -> dict[str, Any]:
    """Writes searches, candidates and feed_views of the training part unchanged, and returns their row counts."""
    assert train.searches is not None
    rows = {}
    kept = train.searches.select("search_id")
    for name, key in (("searches", ("time", "search_id")), ("candidates", ("search_id", "doc_id"))):
        if name in logs.names:
            table = connection.table(name).semi_join(kept, "search_id").order_by(*key).to_pyarrow()
            if not len(table):
                raise InputError(f"no rows of {name} are left to train on; choose another time or fraction")
            write_table(out, name, table)
            rows[name] = len(table)
    if "feed_views" in logs.names:
        views = connection.table("feed_views")
        views = views if time is None else views.filter(views.time < time)
        table = views.order_by("time", "user_id", "doc_id", "watch_seconds", "liked").to_pyarrow()
        write_table(out, "feed_views", table)
        rows["feed_views"] = len(table)
    return {"rows": rows}


def _write_knowledge(connection: Connection, train: LogEvents, judged: pa.Table | None, out: Path) -> dict[str, int]:
    """Writes the knowledge documents of queries of the training part; others would reveal held-out queries."""
    written = connection.table("knowledge_documents")
    queries = [] if train.searches is None else [train.searches.select("query")]
    if judged is not None:
        table = ibis.memtable(judged.select(["query", "split"]))
        queries.append(table.filter(table.split == "train").select("query"))
    known = ibis.union(*queries) if len(queries) > 1 else queries[0]
    kept = written.semi_join(known, "query").order_by("query", "doc_id").to_pyarrow()
    write_table(out, "knowledge_documents", kept)
    return {"kept": len(kept), "dropped": count(written) - len(kept)}


def _theta(arguments: HoldOutArguments, split: LogTables, logs: LogTables, time: datetime.datetime | None) -> Theta:
    if arguments.discriminator is not None:
        theta = open_theta(arguments.discriminator)
        refuse_later(theta, arguments.discriminator, time, argument="--from")
        if time is None or theta.fitted["unsplit_judgements"]:
            decides = {"from_": arguments.from_, "fraction": arguments.fraction, "by": arguments.by}
            refuse_other_split(arguments.discriminator, logs, {**decides, "seed": arguments.parameters.seed})
        return theta
    connection = split.connect(memory_limit=arguments.memory_limit)
    events = read_events(connection, split.names, long_watch_seconds=arguments.parameters.long_watch_seconds)
    parameters = arguments.parameters
    grade = parameters.relevant_grade
    if grade is None:
        grade = declared_relevant_grade(logs.path)  # the split has no manifest yet
    return fit_theta(connection, split, events, until=time, relevant_grade=grade, seed=parameters.seed)


def _write_tests(
    arguments: HoldOutArguments, connection: Connection, test: LogEvents, theta: Theta, out: Path
) -> dict[str, Any]:
    assert test.impressions is not None
    clicks = test.impressions.filter(test.impressions.consumed).select("query", "doc_id").distinct()
    clicks = clicks.order_by("query", "doc_id").to_pyarrow()
    write_table(out, "test_clicks", clicks)
    parameters = arguments.parameters
    if arguments.reformulations_by == "truth":  # The truth of the first query decides, however the two are similar.
        parameters = dataclasses.replace(parameters, beta=-1.0, similarity_encoder=None)
    candidates, counts = reformulation_supports(connection, test, parameters=parameters)
    if arguments.reformulations_by == "truth":
        pairs = candidates.select("query", "doc_id").distinct()
        passing = pairs.semi_join(ibis.memtable(read_truth(arguments.logs, ["query", "doc_id"])), ["query", "doc_id"])
    else:
        scorer = remembering(theta.discriminator, output=arguments.output, score_cache=arguments.score_cache)
        pairs = theta_table(connection, candidates, scorer)
        passing = pairs.filter(pairs.score > arguments.parameters.alpha)
    reformulations = passing.select("query", "doc_id").order_by("query", "doc_id").to_pyarrow()
    write_table(out, "test_reformulations", reformulations)
    numbers = {**counts, "candidates": count(pairs), "passing": len(reformulations)}
    return {"test_clicks": len(clicks), "test_reformulations": numbers}


def _count_searches(events: LogEvents) -> int:
    assert events.searches is not None
    return count(events.searches)


if __name__ == "__main__":
    program.run(
        hold_out,
        example="python -m data.hold_out --logs logs --from 2024-05-31 --output split",
        then=("data.mine --logs {output} --output LABELS",),
        device=True,
    )
