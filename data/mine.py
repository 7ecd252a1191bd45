"""Mines labels from log tables: perspectives, relevance discriminator (theta), hierarchical label assignment (HLA)."""

from pathlib import Path
from typing import Any

import ibis

from crops_jax import program
from crops_jax.artifacts import check_output
from crops_jax.errors import InputError
from data.backends.connection import Connection, connect
from data.backends.spark_errors import named_spark_errors
from data.labels.files import MOST_PARTS
from data.mining.arguments import MineArguments
from data.mining.days import mine_day
from data.mining.evidence import DECIDED_BY_THETA, count, gather_evidence
from data.mining.labelling import write_evidence_labels
from data.mining.output import check_judged_documents, mining_inputs, mining_output, open_mined_logs
from data.mining.parameters import by_flag, missing_tables, wanted_perspectives
from data.mining.relevance.precision import measure_relevance
from data.mining.relevance.theta import choose_theta
from data.mining.relevance.training_pairs import NothingToFit, train_judgements
from data.mining.scores import forget, remembering, theta_table
from data.perspectives import judged, knowledge_level
from data.perspectives.log_events import parse_time, read_events
from data.tables import LogTables


def mine(arguments: MineArguments) -> dict[str, Any]:
    """Mines positives and negatives from log tables and writes the label table.

    With --day and --state it mines one day and adds it to the days of earlier calls, without reading their logs again.
    """
    wanted = _checked(arguments)
    if arguments.day is not None:
        return mine_day(arguments, wanted)
    check_output(arguments.output, overwrite=arguments.overwrite, inputs={"logs": arguments.logs})
    logs = open_mined_logs(
        arguments.logs,
        output=arguments.output,
        on_bad_rows=arguments.on_bad_rows,
        knowledge_documents=arguments.knowledge_documents,
    )
    mined: dict[str, Any] = {}
    with mining_output(
        arguments.output,
        program="data.mine",
        kind="labels",
        arguments=by_flag(arguments),
        inputs=mining_inputs(
            logs=arguments.logs,
            discriminator=arguments.discriminator,
            similarity_encoder=arguments.parameters.similarity_encoder,
            knowledge_documents=arguments.knowledge_documents,
        ),
        overwrite=arguments.overwrite,
        mined=mined,
    ) as out:
        with named_spark_errors(logs.tables.values()):
            mined.update(_mine(arguments, logs, wanted, out))
        mined.update(logs.outcome)
    forget(output=arguments.output, score_cache=arguments.score_cache)
    return {"labels": arguments.output, **mined}


def _checked(arguments: MineArguments) -> list[str]:
    """Checks that the arguments go together, and returns the perspectives to mine; all of them if none is named."""
    if arguments.judgements_as_labels != (arguments.grade_levels is not None):
        raise InputError("--judgements-as-labels and --grade-levels go together, as in --grade-levels 0=3,1=4")
    if (arguments.day is None) != (arguments.state is None):
        raise InputError("--day and --state go together: a day is added to what the state remembers of other days")
    if arguments.forget_before is not None and arguments.day is None:
        raise InputError("--forget-before goes with --day and --state")
    if arguments.day is not None and arguments.parameters.alpha_precision is not None:
        raise InputError(
            "--alpha-precision and --day exclude each other: alpha must be the same on all days; give --alpha"
        )
    for name in ("until", "grade_levels", "score_cache"):
        if arguments.day is not None and getattr(arguments, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} and --day exclude each other; leave one of them out")
    if arguments.partitions is not None and not 1 <= arguments.partitions <= MOST_PARTS:
        raise InputError(f"--partitions {arguments.partitions} is not between 1 and {MOST_PARTS}")
    return wanted_perspectives(arguments.perspectives)


def _mine(arguments: MineArguments, logs: LogTables, wanted: list[str], out: Path) -> dict[str, Any]:
    connection = connect(
        logs,
        backend=arguments.backend,
        memory_limit=arguments.memory_limit,
        spark_master=arguments.spark_master,
    )
    parameters = arguments.parameters
    until = None if arguments.until is None else parse_time(arguments.until, argument="--until")
    events = read_events(connection, logs.names, long_watch_seconds=parameters.long_watch_seconds).before(until)
    if until is not None and events.searches is not None and not count(events.searches):
        raise InputError(f"--until {arguments.until}: no search in {logs.path} happened before; choose a later time")
    skipped = missing_tables(wanted, logs.names)
    theta, described = None, None
    if any(name in wanted and name not in skipped for name in DECIDED_BY_THETA):
        try:
            theta, described = choose_theta(
                connection, logs, events, named=arguments.discriminator, until=until, parameters=parameters
            )
        except NothingToFit as error:
            if arguments.perspectives is not None:
                raise
            skipped |= {name: str(error) for name in DECIDED_BY_THETA if name not in skipped}
    present = [name for name in wanted if name not in skipped]
    judgements, outcome = _judged(connection, logs, grade_levels=arguments.grade_levels)
    if not present and judgements is None:
        raise InputError(
            f"nothing to mine in {logs.path}: {'; '.join(f'{name}: {why}' for name, why in skipped.items())}. Add the "
            "tables, or take judgements with --judgements-as-labels --grade-levels"
        )
    evidence, gathered = gather_evidence(connection, events, present, parameters=parameters)
    pairs, scores = evidence.candidate_pairs, None
    if pairs is not None and theta is not None:
        scorer = remembering(theta.discriminator, output=arguments.output, score_cache=arguments.score_cache)
        scores = theta_table(connection, pairs, scorer)
    parameters, about_theta, precision = measure_relevance(
        connection,
        logs,
        evidence,
        theta,
        scores,
        parameters=parameters,
        until=until,
    )
    if described is not None:
        described |= about_theta
    written = connection.table("knowledge_documents") if knowledge_level.SOURCE in present else None
    counts = write_evidence_labels(
        connection,
        evidence,
        scores,
        out,
        parameters=parameters,
        partitions=arguments.partitions,
        written=written,
        judged=judgements,
    )
    for name, more in gathered.items():
        counts[name] = more | counts[name]
    return {**counts, "skipped": skipped, "discriminator": described, **precision, **outcome}


def _judged(
    connection: Connection, logs: LogTables, *, grade_levels: str | None
) -> tuple[ibis.Table | None, dict[str, dict[str, int]]]:
    """Returns the rows of judgements, or None if they are not labels, and the counts of those that were left out."""
    if grade_levels is None:
        return None, {}
    if "judgements" not in logs.names:
        raise InputError(f"--judgements-as-labels: table judgements is not in {logs.path}")
    steps = judged.parse_grade_levels(grade_levels)
    check_judged_documents(logs, split="train")
    train = train_judgements(connection)
    known = train.semi_join(connection.table("documents"), "doc_id")
    rows = judged.labels(known, steps)
    counts = {
        "without_split": count(train.filter(train.split.isnull())),
        "unknown_documents": count(train) - count(known),
        "below_grade_levels": count(known) - count(rows),
    }
    return rows, {"judgements": counts}


if __name__ == "__main__":
    program.run(
        mine,
        example="python -m data.mine --logs split --output labels --perspectives search_log,query_level",
        then=(
            "data.report --labels {output} --logs {logs} --output LABELS.html",
            "data.write_records --labels {output} --logs {logs} --output RECORDS",
        ),
        device=True,
    )
