"""The arguments of data.write_records."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath, OutputPath
from data.backends.connection import LOCAL_MASTER
from data.tables import OnBadRows

_MAX_SIZE = 10_000_000
"""The maximum of a size on the command line. A larger size is a mistake, and training a vocabulary allocates memory
for it at once.
"""

_MAX_WORKERS = 1024


@dataclass(frozen=True, kw_only=True)
class WriteRecordsArguments:
    """The arguments of data.write_records."""

    labels: InputPath
    """The directory of the label table, as data.mine writes it."""
    logs: InputPath
    """The log tables that the labels were mined from. The texts of the documents come from them."""
    output: OutputPath
    """The directory to write the records to."""
    knowledge_documents: InputPath | None = None
    """The output directory of data.synthesize, with documents that a language model wrote. It is needed for labels that
    were mined with these documents."""
    discriminator: InputPath | None = None
    """The directory of a relevance discriminator (theta), such as SPLIT/discriminator or a run of
    launch.train_discriminator. The records then hold its score of every document whose tokens are written, which
    launch.train can distil (--loss.distillation). One that read what LOGS hold out is refused. By default the records
    have no scores."""
    on_bad_rows: OnBadRows = "fail"
    """With "fail", rows of the logs that break a rule are an error. With "quarantine", they are left out, counted, and
    written to OUTPUT.quarantine."""
    backend: Literal["duckdb", "pyspark"] = "duckdb"
    """The engine that joins labels and texts and writes the shards: DuckDB on this machine, or Spark with one task for
    each shard.
    """
    spark_master: str = LOCAL_MASTER
    """The address of the Spark master, with --backend pyspark. OUTPUT must be on a file system that all machines of
    Spark share, and these machines must be able to import crops_jax and data."""
    workers: int | None = None
    """The number of worker processes. The records do not depend on it. With 1, no worker process is started. The
    default is the number of usable cores minus one, or 1 for a small number of labels and documents."""
    overwrite: bool = False
    """Replace the output if it exists."""
    tokenizer: InputPath | None = None
    """A Hugging Face tokenizer folder, or the name of a hub repository. By default a WordPiece vocabulary is learnt
    from the documents."""
    vocabulary_from: InputPath | None = None
    """The log tables from whose documents the vocabulary is learnt, without --tokenizer. The default is LOGS."""
    vocabulary_size: int = 4096
    """The number of tokens of the vocabulary that is learnt."""
    max_tokens: int = 128
    """The maximum number of tokens of a document, including special tokens. The rest of its text is cut off."""
    max_query_tokens: int = 32
    """The maximum number of tokens of a query, including special tokens."""
    documents_per_query: int = 16
    """The maximum number of documents of a query whose tokens are written. The ids and levels of all its documents are
    written."""
    all_documents: bool = False
    """Writes the tokens of all documents of LOGS too, as the split documents, among which launch.train
    --negatives.refresh-every-steps mines negatives with its own model."""
    num_shards: int = 4
    """The number of files of the split train, and of documents. It is never more than the number of their records."""
    dev_fraction: float = 0.05
    """The share of the queries that form the split dev, chosen by hash. Training does not use them; they decide which
    checkpoint is the best."""
    seed: int = 0
    """The seed of the random choice of documents if a query has more than documents_per_query."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("labels", "logs", "knowledge_documents", "discriminator", "on_bad_rows"),
        "output": ("output", "overwrite", "documents_per_query", "all_documents", "num_shards")
        + ("dev_fraction", "seed"),
        "text": ("tokenizer", "vocabulary_from", "vocabulary_size", "max_tokens", "max_query_tokens"),
        "advanced": ("backend", "spark_master", "workers"),
    }

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "max_tokens", "max_query_tokens", "documents_per_query", "num_shards"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(self, name)}")
            if getattr(self, name) > _MAX_SIZE:
                raise ValueError(f"--{name.replace('_', '-')} must be at most {_MAX_SIZE}, found {getattr(self, name)}")
        if self.tokenizer is not None and self.vocabulary_from is not None:
            raise ValueError("--vocabulary-from learns a vocabulary and --tokenizer brings one; give one of them")
        if self.discriminator is not None and self.backend == "pyspark":
            raise ValueError("--discriminator scores on one machine; leave --backend pyspark out, or the scores")
        if self.all_documents and self.backend == "pyspark":
            raise ValueError("--all-documents writes on one machine; leave --backend pyspark out")
        if not 0 <= self.dev_fraction < 1:
            raise ValueError(f"--dev-fraction must lie in [0, 1), found {self.dev_fraction}")
        if self.workers is not None and not 1 <= self.workers <= _MAX_WORKERS:
            raise ValueError(f"--workers must lie in [1, {_MAX_WORKERS}], found {self.workers}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")
