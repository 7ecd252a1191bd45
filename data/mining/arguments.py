"""The arguments of data.mine."""

import dataclasses
from typing import Annotated, Literal

import tyro

from data.mining.parameters import MiningParameters
from data.tables import OnBadRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MineArguments:
    """What to mine, where from and where to."""

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
    parameters: Annotated[MiningParameters, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=MiningParameters
    )
    """The parameters of mining; each is a flag of its own."""
    on_bad_rows: OnBadRows = "fail"
    """quarantine: rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""
