"""The arguments of data.write_records."""

from dataclasses import dataclass
from typing import Literal

from data.backends.connection import LOCAL_MASTER
from data.tables import OnBadRows

_GREATEST = 10_000_000
"""The limit of sizes on the command line. A larger size is a mistake, and training a vocabulary allocates it at
once.
"""

_MOST_WORKERS = 1024


@dataclass(frozen=True, kw_only=True)
class WriteRecordsArguments:
    """The arguments of data.write_records."""

    labels: str
    """Directory with the label table, as data.mine writes it."""
    logs: str
    """The log tables that the labels were mined from; the texts come from there."""
    output: str
    """Directory for the records."""
    knowledge_documents: str | None = None
    """DOCS of data.synthesize: documents that a language model wrote, for labels that were mined with them."""
    on_bad_rows: OnBadRows = "fail"
    """Rows of LOGS that break a rule: fail refuses them, quarantine sets them aside in OUTPUT.quarantine."""
    backend: Literal["duckdb", "pyspark"] = "duckdb"
    """The engine that joins labels and texts and writes the shards: this machine, or Spark with one task for each
    shard.
    """
    spark_master: str = LOCAL_MASTER
    """The address of Spark, with --backend pyspark. OUTPUT must be on a file system that all its machines share, and
    they import crops_jax and data."""
    workers: int | None = None
    """Worker processes; the records are the same for any number. 1 works without any. By default one for each core
    that may be used but one, and none where there is little to do."""
    overwrite: bool = False
    """Replace what is there."""
    tokenizer: str | None = None
    """A Hugging Face tokenizer folder, or the name of a hub repository; without it a WordPiece vocabulary is learnt
    from the documents."""
    vocabulary_size: int = 4096
    """Tokens of the vocabulary that is learnt."""
    max_tokens: int = 128
    """Tokens of a document, special ones included; the rest of its text is cut off."""
    max_query_tokens: int = 32
    """Tokens of a query."""
    documents_per_query: int = 16
    """Documents of a query that get their tokens written. Ids are never left out."""
    num_shards: int = 4
    """Files of the split train; there are never more than queries."""
    dev_fraction: float = 0.05
    """Share of the queries, by their hash, that keep-best is judged on and that are not trained on."""
    seed: int = 0
    """The seed of the choice of documents if a query has more than documents_per_query."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "max_tokens", "max_query_tokens", "documents_per_query", "num_shards"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(self, name)}")
            if getattr(self, name) > _GREATEST:
                raise ValueError(f"--{name.replace('_', '-')} must be at most {_GREATEST}, found {getattr(self, name)}")
        if not 0 <= self.dev_fraction < 1:
            raise ValueError(f"--dev-fraction must lie in [0, 1), found {self.dev_fraction}")
        if self.workers is not None and not 1 <= self.workers <= _MOST_WORKERS:
            raise ValueError(f"--workers must lie in [1, {_MOST_WORKERS}], found {self.workers}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")
