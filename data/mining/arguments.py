"""The arguments of data.mine."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import tyro

from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath, LocalPath, OutputPath
from data.mining.parameters import MiningParameters
from data.tables import OnBadRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MineArguments:
    """The arguments of data.mine: the input, the output and the parameters of mining."""

    logs: InputPath
    """The directory of log tables."""
    output: OutputPath
    """The directory to write labels.parquet and alpha_sweep.json into. With --day, labels of the same state are
    replaced."""
    overwrite: bool = False
    """Replace the output if it exists."""
    backend: Literal["duckdb", "pyspark"] = "duckdb"
    """The engine that runs the joins. pyspark needs Java 17, and executors that see --logs and --output at the same
    paths."""
    spark_master: str = "local[*]"
    """The Spark master URL; it is used with --backend pyspark."""
    memory_limit: str | None = None
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk. The default is 80 % of the machine's memory.
    With pyspark it is the heap of the driver, and the default is a quarter of the machine's memory."""
    partitions: int | None = None
    """Write a folder OUTPUT/labels of this number of files instead of labels.parquet. By default pyspark writes one
    file for each 5 million rows."""
    until: str | None = None
    """Read only events before this time (exclusive, ISO 8601; UTC if it has no offset)."""
    perspectives: str | None = None
    """The perspectives, separated by commas: search_log (clicks and all negatives), query_level, system_level,
    knowledge_level. The default is every perspective whose tables are present."""
    discriminator: InputPath | None = None
    """The folder of a relevance discriminator (theta), which gives the probability that a document answers a query. The
    default is LOGS/discriminator; if that does not exist, a lexical discriminator is fitted on LOGS."""
    score_cache: LocalPath | None = None
    """The directory of a cache of a cross-encoder's scores, which several calls can share. With it, an interrupted call
    does not score the same pairs again. The default is OUTPUT.scores, which is removed when the output is complete."""
    knowledge_documents: InputPath | None = None
    """A directory with a table knowledge_documents, as data.synthesize writes it. It is read instead of the table in
    the logs."""
    day: str | None = None
    """Mine only this UTC day (YYYY-MM-DD) into --state, and write the labels of all days in the state. If the state
    already has the day, it is replaced. Of tables in folders day=YYYY-MM-DD, only the folders of the days that are
    needed are opened."""
    state: LocalPath | None = None
    """The private directory (mode 0700) that keeps the evidence between days, with users as keyed hashes. It is needed
    with --day."""
    forget_before: str | None = None
    """Remove the days before this one (YYYY-MM-DD) from --state."""
    judgements_as_labels: bool = False
    """Use the judgements of split train as labels, for sources without a log."""
    grade_levels: str | None = None
    """The minimum grade of each level, written GRADE=LEVEL, as in 0=3,1=4. It is needed with
    --judgements-as-labels."""
    parameters: Annotated[MiningParameters, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=MiningParameters
    )
    """The parameters of mining; each is a flag of its own."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("logs", "knowledge_documents", "until", "judgements_as_labels", "grade_levels", "on_bad_rows"),
        "output": ("output", "overwrite", "partitions"),
        "perspective": ("perspectives",),
        "relevance": ("discriminator",),
        "daily": ("day", "state", "forget_before"),
        "advanced": ("backend", "spark_master", "score_cache", "memory_limit"),
    }
