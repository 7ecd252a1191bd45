"""Log tables to the label table: perspectives, discriminator, hierarchical label assignment."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import ibis

from crops_jax import program
from crops_jax.artifacts import check_output
from crops_jax.errors import InputError
from data.backends.connection import connect
from data.labels.assign_levels import parse_levels
from data.labels.files import MOST_PARTS
from data.mining.days import mine_day
from data.mining.evidence import DECIDED_BY_THETA, count, gather_evidence
from data.mining.labelling import write_evidence_labels
from data.mining.output import mining_inputs, mining_output, open_mined_logs
from data.mining.parameters import check_mining_parameters, missing_tables, wanted_perspectives
from data.mining.scores import forget, remembering, theta_table
from data.mining.theta import choose_theta
from data.mining.training_pairs import NothingToFit, train_judgements
from data.perspectives import judged, knowledge_level, query_level, system_level
from data.perspectives.log_events import LONG_WATCH_SECONDS, parse_time, read_events
from data.tables import LogTables, OnBadRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MineArguments:
    logs: str
    """Directory of log tables."""
    output: str
    """Directory to write labels.parquet and alpha_sweep.json into. With --day, labels of this state are replaced."""
    overwrite: bool = False
    """Replace the output if it exists."""
    backend: Literal["duckdb", "pyspark"] = "duckdb"
    """What runs the joins. pyspark needs Java 17, and executors that see --logs and --output under their paths."""
    spark_master: str = "local[*]"
    """Where Spark runs, with --backend pyspark."""
    memory_limit: str | None = None
    """What DuckDB may hold in memory, such as 4GB; more is spilled to disk. By default 80 % of the machine. With
    pyspark the heap of the driver, by default a quarter of the machine."""
    partitions: int | None = None
    """Write LABELS/labels/ of so many files instead of labels.parquet. By default pyspark writes one for each 5 million
    rows."""
    until: str | None = None
    """Read only what happened before this time (exclusive, ISO 8601, UTC without an offset)."""
    perspectives: str | None = None
    """Comma list of search_log (clicks and all negatives), query_level, system_level, knowledge_level. By default all
    that the tables allow."""
    discriminator: str | None = None
    """Folder of a discriminator. By default LOGS/discriminator; without one a lexical one is fitted on LOGS."""
    score_cache: str | None = None
    """Directory where the scores of a cross-encoder are kept, which several calls may share. By default OUTPUT.scores,
    which goes once the output is there: it spares an interrupted call to score again."""
    similarity_encoder: str | None = None
    """RUN or model folder whose query embeddings say how alike two queries are; by default character trigrams do."""
    min_supporters: int = 1
    """A perspective keeps a (query, document) pair that at least so many distinct users support, and nothing comes of
    queries that fewer users typed. 5 is advisable where labels leave the hands of those who may see the logs."""
    knowledge_documents: str | None = None
    """Directory with a table knowledge_documents, as data.synthesize writes it: read in the place of the logs' own."""
    day: str | None = None
    """Mine this UTC day alone (YYYY-MM-DD) into --state, and write the labels of all days that are there. A day that is
    there already is replaced. Of tables in folders day=YYYY-MM-DD, other days' are not opened."""
    state: str | None = None
    """Private directory (mode 0700) of what is remembered between days, users as keyed hashes. Goes with --day."""
    forget_before: str | None = None
    """Remove the days before this one (YYYY-MM-DD) from --state."""
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
    on_bad_rows: OnBadRows = "fail"
    """quarantine: rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
    seed: int = 0
    """Of the lexical discriminator's random negatives."""


def mine(arguments: MineArguments) -> dict[str, Any]:
    """Mines positives and negatives from log tables and writes the label table.

    With --day and --state it mines one day and adds it to what earlier calls found, without reading their logs again.
    """
    wanted = _checked(arguments)
    if arguments.day is not None:
        return mine_day(arguments, wanted)
    check_output(arguments.output, overwrite=arguments.overwrite, inputs={"logs": arguments.logs})
    logs = open_mined_logs(arguments)
    mined: dict[str, Any] = {}
    with mining_output(
        arguments,
        arguments.output,
        program="data.mine",
        kind="labels",
        inputs=mining_inputs(arguments),
        overwrite=arguments.overwrite,
        mined=mined,
    ) as out:
        mined.update(_mine(arguments, logs, wanted, out) | logs.outcome)
    forget(arguments)
    return {"labels": arguments.output, **mined}


def _checked(arguments: MineArguments) -> list[str]:
    """The perspectives asked for, all of them when none is named."""
    check_mining_parameters(arguments)
    parse_levels(arguments.levels)
    if arguments.judgements_as_labels != (arguments.grade_levels is not None):
        raise InputError("--judgements-as-labels and --grade-levels go together, as in --grade-levels 0=3,1=4")
    if (arguments.day is None) != (arguments.state is None):
        raise InputError("--day and --state go together: a day is added to what the state remembers of other days")
    if arguments.forget_before is not None and arguments.day is None:
        raise InputError("--forget-before goes with --day and --state")
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
    until = None if arguments.until is None else parse_time(arguments.until, argument="--until")
    events = read_events(connection, logs.names, long_watch_seconds=arguments.long_watch_seconds).before(until)
    if until is not None and events.searches is not None and not count(events.searches):
        raise InputError(f"--until {arguments.until}: no search in {logs.path} happened before; choose a later time")
    skipped = missing_tables(wanted, logs.names)
    theta, described = None, None
    if any(name in wanted and name not in skipped for name in DECIDED_BY_THETA):
        try:
            theta, described = choose_theta(arguments, connection, logs, events, until=until)
        except NothingToFit as error:
            if arguments.perspectives is not None:
                raise
            skipped |= {name: str(error) for name in DECIDED_BY_THETA if name not in skipped}
    present = [name for name in wanted if name not in skipped]
    judgements, outcome = _judged(arguments, connection, logs)
    if not present and judgements is None:
        raise InputError(
            f"nothing to mine in {logs.path}: {'; '.join(f'{name}: {why}' for name, why in skipped.items())}. Add the "
            "tables, or take judgements with --judgements-as-labels --grade-levels"
        )
    evidence, gathered = gather_evidence(arguments, connection, events, present)
    pairs, scores = evidence.candidate_pairs, None
    if pairs is not None and theta is not None:
        scores = theta_table(connection, pairs, remembering(theta.discriminator, arguments))
    written = connection.table("knowledge_documents") if knowledge_level.SOURCE in present else None
    counts = write_evidence_labels(arguments, connection, evidence, scores, out, written=written, judged=judgements)
    for name, more in gathered.items():
        counts[name] = more | counts[name]
    return {**counts, "skipped": skipped, "discriminator": described, **outcome}


def _judged(
    arguments: MineArguments, connection, logs: LogTables
) -> tuple[ibis.Table | None, dict[str, dict[str, int]]]:
    """The rows of judgements, where they are wanted, and for the outcome how many were left out and why."""
    if arguments.grade_levels is None:
        return None, {}
    if "judgements" not in logs.names:
        raise InputError(f"--judgements-as-labels: table judgements is not in {logs.path}")
    steps = judged.parse_grade_levels(arguments.grade_levels)
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
    program.run(mine, example="python -m data.mine --logs split --output labels --perspectives search_log,query_level")
