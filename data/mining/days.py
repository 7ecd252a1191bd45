"""Mining by days: a private state keeps the evidence of each day, and the label table is made from all its days.

Evidence belongs to the UTC day of its latest event: the click, the later query, or the later of search and feed view.
So a pair across midnight belongs to the later day. To mine a day, only the searches and feed views of that day and of
the time before it, as long as the longer of the two windows, are read.

The labels equal those of one run over all the days with the same parameters. They do not depend on the order in which
the days were mined, nor on how often. Two things differ: the limit of feed documents applies to each (user, query,
day), and the limit of searches an hour sees only the hours that are read for a day. Documents that a language model
wrote are read again each time.
"""

import datetime
from pathlib import Path
from typing import Any

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.text import QUERY_FORM
from data.backends.connection import Connection, DuckDBConnection, connect
from data.backends.spark_errors import named_spark_errors
from data.mining import day_files
from data.mining.arguments import MineArguments
from data.mining.evidence import DECIDED_BY_THETA, count, gather_evidence
from data.mining.labelling import write_evidence_labels
from data.mining.output import mining_inputs, mining_output, open_mined_logs
from data.mining.parameters import MiningParameters, by_flag, missing_tables
from data.mining.relevance.precision import measure_relevance
from data.mining.relevance.theta import FOLDER, Theta, fit_theta, open_theta, save_theta
from data.mining.scores import theta_table
from data.mining.state import MiningState, named_damage, open_state
from data.perspectives import knowledge_level
from data.perspectives.log_events import LogEvents, read_events
from data.tables import LogTables
from data.tables.days import misplaced, parse_day
from data.tables.duckdb_session import named_lack_of_room
from data.tables.files import add_view

UNPINNED = {
    "logs",
    "output",
    "overwrite",
    "backend",
    "spark_master",
    "memory_limit",
    "partitions",
    "until",
    "judgements_as_labels",
    "grade_levels",
    "knowledge_documents",
    "on_bad_rows",
    "day",
    "state",
    "forget_before",
}
"""The arguments that can differ from day to day: paths and the engine of the joins, not the parameters of mining."""


def mine_day(arguments: MineArguments, wanted: list[str]) -> dict[str, Any]:
    """Mines one day into STATE, and writes the labels of all days in the state.

    Args:
      arguments: the arguments of data.mine; day and state are not None.
      wanted: the perspectives to mine.

    Returns:
      The outcome: counts of the labels, the days of the state, and the counts of this day.

    Raises:
      InputError: the parameters differ from those of the earlier days, or the day has no events.
    """
    assert arguments.day is not None
    assert arguments.state is not None
    day = parse_day(arguments.day, argument="--day")
    first = None if arguments.forget_before is None else parse_day(arguments.forget_before, argument="--forget-before")
    if first is not None and first > day:
        raise InputError(f"--forget-before {first} is after --day {day}, which would be mined for nothing")
    _check_apart(state=arguments.state, logs=arguments.logs, output=arguments.output)
    inputs = mining_inputs(
        logs=arguments.logs,
        discriminator=arguments.discriminator,
        similarity_encoder=arguments.parameters.similarity_encoder,
        knowledge_documents=arguments.knowledge_documents,
    )
    inputs.pop("logs")
    with open_state(arguments.state) as state, named_lack_of_room(), named_damage(state):
        overwrite = arguments.overwrite or _is_of(state, arguments.output)
        artifacts.check_output(arguments.output, overwrite=overwrite, inputs={**inputs, "logs": arguments.logs})
        folder = _theta_folder(arguments.discriminator, arguments.logs, state, wanted)
        state.check_pins(_pins(arguments, wanted, folder))
        logs = open_mined_logs(
            arguments.logs,
            output=arguments.output,
            on_bad_rows=arguments.on_bad_rows,
            knowledge_documents=arguments.knowledge_documents,
            days=(_first_read(day, arguments.parameters).date(), day),
        )
        tables = logs.connect(memory_limit=arguments.memory_limit)
        _check_places(tables, logs)
        with named_spark_errors(logs.tables.values()):
            theta, outcome = _add_day(arguments, wanted, logs, tables, state, day, folder)
        outcome["forgotten"] = [] if first is None else _forget(tables, state, first)
        mined: dict[str, Any] = {"days": [str(kept) for kept in state.days()], "state": state.name}
        with mining_output(
            arguments.output,
            program="data.mine",
            kind="labels",
            arguments={**by_flag(arguments), "logs": None},
            inputs={**inputs, "state": arguments.state},
            overwrite=overwrite,
            mined=mined,
        ) as out:
            labels, about_theta = _write_labels(
                wanted,
                logs,
                tables,
                state,
                out,
                theta=theta,
                parameters=arguments.parameters,
                partitions=arguments.partitions,
            )
            if theta is not None:
                outcome["discriminator"] = theta.fitted | about_theta
            mined.update(labels)
            mined.update(outcome | logs.outcome)
    return {"labels": arguments.output, "day": str(day), **mined}


def _check_apart(*, state: str, logs: str, output: str) -> None:
    here = Path(state).resolve()
    for name, path in (("logs", logs), ("output", output)):
        there = Path(path).resolve()
        if here == there or here in there.parents or there in here.parents:
            raise InputError(f"--state {state} and --{name} {there} overlap; choose another state")


def _is_of(state: MiningState, labels: str) -> bool:
    """Returns whether labels were written from this state, so that they can be replaced without --overwrite."""
    if not state.days() or not (Path(labels) / artifacts.MANIFEST).exists():
        return False
    mined = artifacts.read_manifest(labels).get("mined")
    return isinstance(mined, dict) and mined.get("state") == state.name


def _theta_folder(named: str | None, logs: str, state: MiningState, wanted: list[str]) -> Path | None:
    """Returns the folder of an existing discriminator; None if one must be fitted, or if none is needed."""
    if not set(DECIDED_BY_THETA) & set(wanted):
        return None
    if named is not None:
        return Path(named)
    kept = (Path(logs) / FOLDER, state.discriminator)
    return next((folder for folder in kept if folder.is_dir()), None)


def _pins(arguments: MineArguments, wanted: list[str], folder: Path | None) -> dict[str, Any]:
    pinned = {name: value for name, value in by_flag(arguments).items() if name not in UNPINNED}
    encoder = arguments.parameters.similarity_encoder
    if encoder is not None and Path(encoder).exists():
        pinned["similarity_encoder"] = artifacts.fingerprint(encoder)
    pinned["discriminator"] = None if folder is None else artifacts.fingerprint(folder)
    return {**pinned, "perspectives": ",".join(wanted), "query_form": QUERY_FORM}


def _first_read(day: datetime.date, parameters: MiningParameters) -> datetime.datetime:
    """The time from which on events may belong to evidence of a day."""
    return _midnight(day, earlier=max(parameters.window_seconds, parameters.feed_window_seconds))


def _midnight(day: datetime.date, *, earlier: int = 0) -> datetime.datetime:
    """The beginning of a day in UTC, or some seconds before, but not before the calendar."""
    start = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    return start - min(datetime.timedelta(seconds=earlier), start - datetime.datetime.min.replace(tzinfo=datetime.UTC))


def _check_places(tables: DuckDBConnection, logs: LogTables) -> None:
    for name in {"searches", "feed_views"} & logs.names:
        add_view(tables.con, logs.tables[name], view=f"placed_{name}", located=True)
        rows, found = misplaced(tables.con, f"placed_{name}")
        if found is not None:
            raise InputError(
                f"table {name}, column time: {found['file']}, row {found['row']} (counted from 0): {found['time']} is "
                f"of another UTC day than its folder ({rows} such rows); write every row into the folder of its day"
            )


def _add_day(
    arguments: MineArguments,
    wanted: list[str],
    logs: LogTables,
    tables: DuckDBConnection,
    state: MiningState,
    day: datetime.date,
    folder: Path | None,
) -> tuple[Theta | None, dict[str, Any]]:
    """Writes the evidence of a day into the state, where it replaces earlier evidence of that day.

    Returns the discriminator, which is None if no perspective needs one, and counts.
    """
    connection = connect(
        logs,
        backend=arguments.backend,
        memory_limit=arguments.memory_limit,
        spark_master=arguments.spark_master,
    )
    start, parameters = _midnight(day), arguments.parameters
    events = read_events(
        connection,
        logs.names,
        long_watch_seconds=parameters.long_watch_seconds,
        since=_first_read(day, parameters),
        before=_midnight(day + datetime.timedelta(days=1)),
    )
    _check_something_happened(events, start, logs)
    skipped = missing_tables(wanted, logs.names)
    theta = None
    if set(DECIDED_BY_THETA) & set(wanted):
        theta, folder = _theta(connection, logs, events, state, folder, parameters)
    present = [name for name in wanted if name not in skipped]
    evidence, counts = gather_evidence(connection, events, present, parameters=parameters, since=start)
    with state.replaced_day(day) as file:
        about = {"recorded": evidence.recorded, "skipped": skipped}
        day_files.write_day(connection, evidence, file, key=state.key, about=about)
        scored = 0 if theta is None else _score_new_pairs(tables, state, file, theta)
        if not state.days():
            state.pin(_pins(arguments, wanted, folder))
    return theta, {"skipped": skipped, "discriminator": None, "pairs_scored": scored, "of_the_day": counts}


def _check_something_happened(events: LogEvents, start: datetime.datetime, logs: LogTables) -> None:
    for table in (events.searches, events.feed_views):
        if table is not None and count(table.filter(table.time >= start).limit(1)):
            return
    raise InputError(f"--day {start.date()}: nothing happened on that day (in UTC) in {logs.path}; give another day")


def _theta(
    connection: Connection,
    logs: LogTables,
    events: LogEvents,
    state: MiningState,
    folder: Path | None,
    parameters: MiningParameters,
) -> tuple[Theta, Path]:
    if folder is None:
        theta = fit_theta(connection, logs, events, relevant_grade=parameters.relevant_grade, seed=parameters.seed)
        with state.new_discriminator() as new:
            save_theta(theta, new)
        folder = state.discriminator
    return open_theta(folder), folder


def _score_new_pairs(tables: DuckDBConnection, state: MiningState, file: Path, theta: Theta) -> int:
    """Scores the candidate pairs that are new on this day with theta, and keeps the scores. Returns their number."""
    pairs = day_files.candidate_pairs(tables, [file]).anti_join(
        day_files.read_scores(tables, state.scores()), ["query", "doc_id"]
    )
    scores = theta_table(tables, pairs, theta.discriminator)
    scored = count(scores)
    if scored:
        with state.more_scores() as new:
            day_files.write_scores(tables, scores, new)
    return scored


def _forget(tables: DuckDBConnection, state: MiningState, first: datetime.date) -> list[str]:
    """Removes the days before `first`, and the scores of pairs that no other day has.

    Scores are removed too because they contain the texts of queries. Returns the removed days.
    """
    gone = state.forget_before(first)
    if gone:
        old = state.scores()
        pairs = day_files.candidate_pairs(tables, list(state.days().values()))
        with state.more_scores() as new:
            kept = day_files.read_scores(tables, old).semi_join(pairs, ["query", "doc_id"])
            day_files.write_scores(tables, kept, new)
        state.drop_scores(old)
    return [str(day) for day in gone]


def _write_labels(
    wanted: list[str],
    logs: LogTables,
    tables: DuckDBConnection,
    state: MiningState,
    out: Path,
    *,
    theta: Theta | None,
    parameters: MiningParameters,
    partitions: int | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the labels of all days. Returns their counts, and the figures about theta."""
    evidence = day_files.read_evidence(tables, list(state.days().values()), wanted)
    pairs, scores = evidence.candidate_pairs, None
    if pairs is not None:
        scores = day_files.read_scores(tables, state.scores()).cache()
        if lost := count(pairs.distinct().anti_join(scores, ["query", "doc_id"])):
            raise InputError(
                f"{state.path / 'scores'}: the scores of {lost} pairs of earlier days are missing; put the files back, "
                "or begin another state and mine its days again"
            )
    written = None
    if knowledge_level.SOURCE in wanted and "knowledge_documents" in logs.names:
        written = tables.table("knowledge_documents")
    _, about_theta, precision = measure_relevance(
        tables,
        logs,
        evidence,
        theta,
        scores,
        parameters=parameters,
    )
    # If pairs need several supporters, the first days can have no rows yet.
    counts = write_evidence_labels(
        tables,
        evidence,
        scores,
        out,
        parameters=parameters,
        partitions=partitions,
        written=written,
        may_be_empty=True,
    )
    return counts | precision, about_theta
