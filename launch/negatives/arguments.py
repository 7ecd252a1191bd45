"""The arguments of launch.mine_negatives."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

from crops_jax.labels import Level
from crops_jax.program.help_rules import FlagGroups
from crops_jax.retrieval.hard_negatives import Selection
from crops_jax.storage import InputPath, OutputPath

if TYPE_CHECKING:
    from crops_jax.negatives import Sampler


@dataclass(frozen=True, kw_only=True)
class MineNegativesArguments:
    """The arguments of launch.mine_negatives."""

    labels: InputPath
    """The directory of the label table, as data.mine writes it."""
    query_embeddings: InputPath = ""
    """The vectors of the queries of LABELS, from launch.embed --texts LABELS --tower query. --ranked-by bm25 takes
    none."""
    document_embeddings: InputPath = ""
    """The vectors of the documents by the same run, from launch.embed --texts LOGS --tower document. --ranked-by bm25
    takes none."""
    ranked_by: Literal["embeddings", "bm25"] = "embeddings"
    """The ranking of the documents: cosines of the embeddings, or BM25 (k1 = 1.2, b = 0.75) over the documents of
    --logs."""
    output: OutputPath
    """The directory for the label table with the mined rows added."""
    overwrite: bool = False
    """Replaces the output if it exists."""
    level: int
    """The level of mined negatives: 0, 1, 2 or 3. A document that already has a higher level keeps it."""
    top: int = Selection.top
    """The last rank that is considered. Ranks count from 1 and omit known positives."""
    skip: int = Selection.skip
    """The number of first ranks that are skipped, because the most probable false negatives have the first ranks."""
    per_query: int = Selection.per_query
    """The maximum number of new negatives of a query."""
    sampling: Literal["top", "random", "simans", "trisampler"] = Selection.sampling
    """With "top", the first of the considered ranks are selected. With "random", documents are drawn from all
    considered ranks by --seed. With "simans" and "trisampler", they are drawn by the sampler of that name
    (crops_jax.negatives), relative to one positive of the query that --seed draws."""
    temperature: float = 0.05
    """The temperature by which cosines are divided for the samplers simans and trisampler, as in the loss. With 1, they
    would draw almost uniformly."""
    simans_a: float = 1.0
    """The factor a of SimANS: p is proportional to exp(-a (s(q, d) - s(q, d+) - b)^2)."""
    simans_b: float = 0.0
    """The difference b of SimANS, at which a document is most probable."""
    trisampler_scale: float = 4.0
    """The scale of the first stage of TriSampler: p is proportional to exp(-(s(q, d) - s(q, d+))^2 / scale)."""
    trisampler_candidates: int = 50
    """The number of documents that the first stage of TriSampler draws."""
    absolute_margin: float | None = Selection.absolute_margin
    """The score of a negative must be below that of the positive by more than this difference."""
    relative_margin: float | None = Selection.relative_margin
    """The score of a negative must be below that of the positive by more than this share of it, such as .05."""
    margin_to: Literal["best", "least"] = Selection.margin_to
    """The positive from which margins are measured: the one with the best score, or the one with the least score, so
    that the margins hold for every positive."""
    seed: int = Selection.seed
    """The seed of every --sampling but top."""
    replace_negatives: bool = False
    """Leaves out the negatives of LABELS, so that mined ones are the only ones. The dev queries of --dev-fraction keep
    theirs."""
    dev_fraction: float = 0.0
    """The share of the queries for which nothing is mined: those that data.write_records --dev-fraction keeps for the
    split dev. With the same number in both programs, the dev split does not depend on what is mined."""
    logs: InputPath | None = None
    """The log tables that LABELS were mined from. Their judgements of split train show how many of the mined negatives
    are false."""
    relevant_grade: float | None = None
    """The minimum grade in --logs of a relevant document. By default every grade above 0 is relevant."""
    exclude_same_text: bool = False
    """Treats documents of --logs that have the same text as a positive as positives too."""
    missing_queries: Literal["refuse", "count"] = "refuse"
    """The treatment of queries of LABELS that have no vector. With "refuse", the program ends with an error. With
    "count", it leaves them out and counts them."""
    search: Literal["exact", "scann"] = "exact"
    """The search method. scann is faster on large corpora but misses some neighbours; it holds all vectors in memory,
    and two runs can differ."""
    memory_limit: str = "1GB"
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("labels", "query_embeddings", "document_embeddings", "ranked_by", "logs", "missing_queries"),
        "output": ("output", "overwrite", "level", "replace_negatives"),
        "sampling": (
            "top",
            "skip",
            "per_query",
            "sampling",
            "temperature",
            "simans_a",
            "simans_b",
            "trisampler_scale",
            "trisampler_candidates",
            "seed",
        ),
        "exclusion": (
            "absolute_margin",
            "relative_margin",
            "margin_to",
            "relevant_grade",
            "exclude_same_text",
            "dev_fraction",
        ),
        "advanced": ("search", "memory_limit"),
    }

    def __post_init__(self) -> None:
        if not Level.IN_BATCH_NEGATIVE <= self.level <= Level.SHOWN_NOT_CLICKED:
            raise ValueError(f"--level must be that of a negative, 0 to 3, found {self.level}")
        self._check_ranking()
        if not 0 <= self.dev_fraction < 1:
            raise ValueError(f"--dev-fraction must lie in [0, 1), found {self.dev_fraction}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"--temperature must be positive and finite, found {self.temperature}")
        if self.exclude_same_text and self.logs is None:
            raise ValueError("--exclude-same-text needs --logs, where the texts are")
        if self.relevant_grade is not None and self.logs is None:
            raise ValueError("--relevant-grade needs --logs, where the judgements are")
        _ = self.selection, self.sampler

    def _check_ranking(self) -> None:
        embedded = bool(self.query_embeddings), bool(self.document_embeddings)
        if self.ranked_by == "embeddings":
            if not all(embedded):
                raise ValueError(
                    "--query-embeddings and --document-embeddings are needed, except with --ranked-by bm25"
                )
            return
        if any(embedded) or self.search != "exact":
            raise ValueError("--ranked-by bm25 takes neither --query-embeddings, --document-embeddings nor --search")
        if self.logs is None:
            raise ValueError("--ranked-by bm25 needs --logs, where the documents are")
        if self.selection.has_margin or self.selection.has_sampler:
            raise ValueError(
                "margins and the samplers simans and trisampler compare cosines; --ranked-by bm25 has none"
            )

    @property
    def sampler(self) -> "Sampler | None":
        """The sampler that draws; None for sampling by rank alone."""
        if not self.selection.has_sampler:
            return None
        from crops_jax.negatives import SimAns, TriSampler  # here, because --help needs no JAX

        if self.sampling == "simans":
            return SimAns(a=self.simans_a, b=self.simans_b)
        return TriSampler(first_stage=self.trisampler_candidates, scale=self.trisampler_scale)

    @property
    def selection(self) -> Selection:
        """The rules that select documents of a ranking."""
        return Selection(**{field.name: getattr(self, field.name) for field in fields(Selection)})
