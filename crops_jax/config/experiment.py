"""The configuration of one experiment: Config and its sections for the batches, optimizer, mesh and training.

configs/ holds one module per experiment, with a CONFIG of type Config.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crops_jax.config.encoder import EncoderConfig
from crops_jax.config.loss import LossConfig
from crops_jax.config.negatives import NegativesConfig
from crops_jax.config.rule import require


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The content of a global batch, and how it is read."""

    queries_per_batch: int = 64
    """The number of queries of a global batch, on all devices together."""
    documents_per_query: int = 4
    """The number of documents of a record whose text enters one batch. They are chosen by (seed, step) among those
    whose tokens the record holds."""
    positives_per_query: int = 0
    """The maximum number of these documents that are positives (levels 4 and 5), so that the others are hard negatives.
    A record with too few hard negatives leaves columns empty. 0: any number."""
    labels_per_query: int = 32
    """k of SparseLabels: the maximum number of labels above level 0 of a query in one batch. Overflow is counted."""
    row_tokens: int = 0
    """The number of tokens of a row into which texts are packed. 0: the shortest row that holds the longest text."""
    shuffle: bool = True
    """Whether each epoch reads the records in another order, which the seed decides."""
    workers: int = 0
    """The number of worker processes that read ahead. 0: the training process reads. It never changes what is read."""
    read_threads: int = 0
    """The number of records, or of ranges of records in a bucket, that a process reads at once. 0: 1 record, or 32
    ranges. More than 1 pays where a read waits, as on a file system of the network. It never changes what is read."""
    cache: Literal["auto", "shards", "off"] = "auto"
    """Whether the shards of records in a bucket are copied to CROPS_CACHE before the first step (shards), or the
    records are read by ranges (off). auto: shards of at most 1 GiB together are copied. It never changes what is
    read."""

    def __post_init__(self) -> None:
        for name in ("queries_per_batch", "documents_per_query", "labels_per_query"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        positives = self.positives_per_query
        require(positives >= 0, "positives_per_query must not be negative", positives)
        for name in ("workers", "read_threads"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        require(self.row_tokens >= 0, "row_tokens must not be negative", self.row_tokens)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, a rate for each layer, and a moving average of the weights."""

    learning_rate: float = 2e-5
    """The greatest learning rate, which the schedule reaches after the warm-up."""
    temperature_learning_rate: float = 1e-2
    """The learning rate of the logarithm of the temperature, with the schedule of learning_rate. A step changes the
    temperature by about 1 % at most. A rate for weights would hardly change it: 500 steps of 2e-5 change it by at most
    1 %. It has no effect on cross-encoders."""
    weight_decay: float = 1e-4
    """The decay of matrices and tables for each unit of learning rate (AdamW); norms and biases have none."""
    warmup_fraction: float = 0.1
    """The share of all steps in which the learning rate rises to its greatest value."""
    final_fraction: float = 0.0
    """The learning rate at the last step, as a fraction of learning_rate."""
    clip_norm: float = 1.0
    """The norm of the whole gradient above which it is scaled down."""
    b1: float = 0.9
    """The decay of the first moment of Adam."""
    b2: float = 0.999
    """The decay of the second moment of Adam."""
    epsilon: float = 1e-8
    """The number that Adam adds to the root of the second moment."""
    layer_decay: float = 1.0
    """The learning rate of a layer as a multiple of the rate of the layer after it; embeddings precede the first layer.
    The last layer and the heads use learning_rate, the temperature temperature_learning_rate."""
    ema_decay: float = 0.0
    """The decay of a moving average of the weights, which evaluation, embedding and export then use. 0: no average.
    After n updates the decay is at most (1 + n) / (10 + n), so it is smaller at first."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "temperature_learning_rate", "weight_decay", "epsilon"):
            require(math.isfinite(getattr(self, name)), f"{name} must be finite", getattr(self, name))
        for name in ("learning_rate", "temperature_learning_rate"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.weight_decay >= 0, "weight_decay must not be negative", self.weight_decay)
        require(0 <= self.warmup_fraction < 1, "warmup_fraction must lie in [0, 1)", self.warmup_fraction)
        require(0 <= self.final_fraction <= 1, "final_fraction must lie in [0, 1]", self.final_fraction)
        require(self.clip_norm > 0, "clip_norm must be positive", self.clip_norm)
        require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, "b1 and b2 must lie in [0, 1)", f"{self.b1}, {self.b2}")
        require(self.epsilon > 0, "epsilon must be positive", self.epsilon)
        require(0 < self.layer_decay <= 1, "layer_decay must lie in (0, 1]", self.layer_decay)
        require(0 <= self.ema_decay < 1, "ema_decay must lie in [0, 1)", self.ema_decay)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The number of devices along each axis; -1 takes all that the other axes leave.

    A resumed run can change the mesh.
    """

    data: int = -1
    """The number of parts into which each batch is split, beside those of fsdp."""
    fsdp: int = 1
    """The number of devices that split parameters, the optimiser's moments and batches. With data = -1 it is a maximum:
    when there are fewer devices, fsdp is all that `model` leaves, so that one configuration serves 1 chip and 256."""
    model: int = 1
    """The number of devices that split heads, feed-forward networks and the vocabulary (tensor parallelism)."""
    documents: Literal["auto", "gather", "ring"] = "auto"
    """How the streaming loss compares every query with every document: each device gathers all documents, or the
    devices pass them on in a ring. "auto" gathers while documents and their gradient take at most 1 GiB per device."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("data", "fsdp", "model")}
        for name, value in sizes.items():
            require(value == -1 or value > 0, f"mesh.{name} must be positive or -1", value)
        free = [name for name, value in sizes.items() if value == -1]
        require(len(free) <= 1, "only one mesh axis may be -1", " and ".join(free))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The length of a run, and how often it logs, evaluates and saves.

    A resumed run can change the fields *_every_steps, *_seconds, keep_last, skip_nonfinite_steps and profile_steps.
    """

    steps: int = 0
    """The number of optimiser steps. 0: the number that `epochs` takes."""
    epochs: float = 1.0
    """The number of passes over the training records, if steps is 0."""
    micro_batches: int = 1
    """The number of parts in which the rows of a batch are encoded, one after the other, to save memory. The loss and
    its gradient are those of the whole batch (GradCache, arXiv 2101.06983). Each part is encoded twice."""
    log_every_steps: int = 10
    """The number of steps between lines of metrics.jsonl."""
    evaluate_every_steps: int = 100
    """The number of steps between evaluations on the dev split, which choose the best checkpoint. 0: no evaluation."""
    dev_queries: int = 4096
    """The maximum number of dev queries. Of a larger dev split, queries at equal distances are evaluated, with the
    documents of their records. 0: all."""
    dev_documents: int = 0
    """The number of documents of the training records among which the dev queries also search, beside the documents of
    their own records. In a small dev split, nearly every encoder finds the few documents of the dev records."""
    early_stopping_evaluations: int = 0
    """The number of evaluations in a row without a better dev metric after which the run ends; its best checkpoint is
    the one before them. 0: the run never ends early. The learning rate follows the schedule of the whole run."""
    checkpoint_every_steps: int = 0
    """The number of steps between checkpoints. 0: no checkpoint by the number of steps."""
    checkpoint_every_seconds: float = 600.0
    """The time in seconds after a checkpoint at which the next one is due, whatever the step. 0: no checkpoint by time.
    A run also saves its last step, its best evaluations, and the step at which it is interrupted."""
    hang_seconds: float = 600.0
    """The time in seconds without progress after which a run counts as hung, or 20 median steps if that is longer. Its
    stacks are written to RUN/hang-PROCESS.txt, and it ends with status 4. 0: a run may hang forever."""
    keep_last: int = 2
    """The number of last checkpoints that are kept beside the best one."""
    skip_nonfinite_steps: int = 0
    """The maximum number of steps of a run whose loss or gradient is NaN or infinite. Such a step is counted and
    changes nothing but the step number. One more ends the run. 0: the first one ends the run."""
    profile_steps: tuple[int, int] = (0, 0)
    """The first step and the number of steps whose profiler trace is written to RUN/profile. 0 steps: no trace."""
    seed: int = 0
    """The seed of initial weights, order, chosen documents and dropout."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.epochs), "epochs must be finite", self.epochs)
        require(self.steps >= 0, "steps must not be negative", self.steps)
        require(
            self.steps > 0 or self.epochs > 0, "either steps or epochs must be positive", f"{self.steps}, {self.epochs}"
        )
        for name in ("log_every_steps", "keep_last", "micro_batches"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        for name in (
            "evaluate_every_steps",
            "dev_queries",
            "dev_documents",
            "early_stopping_evaluations",
            "checkpoint_every_steps",
            "skip_nonfinite_steps",
        ):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("checkpoint_every_seconds", "hang_seconds"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} must be finite and not negative", value)
        rule = "early_stopping_evaluations needs evaluations: evaluate_every_steps must be positive"
        require(
            self.evaluate_every_steps > 0 or not self.early_stopping_evaluations, rule, self.early_stopping_evaluations
        )
        first, count = self.profile_steps
        rule = "profile_steps must be a first step from 1 on and a number of steps, or 0 0"
        require((first, count) == (0, 0) or (first > 0 and count > 0), rule, self.profile_steps)
        require(self.seed >= 0, "seed must not be negative", self.seed)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of one experiment: all settings that decide what a run learns."""

    LATER_SECTIONS: ClassVar[tuple[str, ...]] = ("negatives",)
    """The sections that were added after runs had been stored: where one is missing, it has its defaults."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)

    def __post_init__(self) -> None:
        longest = max(self.encoder.max_query_tokens, self.encoder.max_document_tokens)
        rule = f"row_tokens must be 0 or hold the longest text, {longest} tokens"
        require(self.data.row_tokens == 0 or self.data.row_tokens >= longest, rule, self.data.row_tokens)
        # With encoder.weights, the folder sets the width, which is known only when the configuration is resolved.
        dims, width = self.loss.matryoshka_dims, self.encoder.dim
        rule = f"matryoshka_dims must be below the length of the vectors, {width}"
        require(bool(self.encoder.weights) or all(dim < width for dim in dims), rule, dims)
        if self.encoder.query_codes:
            rule = "query_codes need every score: loss.implementation must be auto or dense"
            require(self.loss.implementation in ("auto", "dense"), rule, self.loss.implementation)
            require(not dims, "query_codes need the full width: loss.matryoshka_dims must be empty", dims)
        self._check_negatives()

    def _check_negatives(self) -> None:
        if not self.negatives.refresh_every_steps:
            return
        positives, documents = self.data.positives_per_query, self.data.documents_per_query
        rule = "refreshed negatives take the places after the positives: positives_per_query must lie in 1 to "
        require(0 < positives < documents, f"{rule}documents_per_query - 1, {documents - 1}", positives)
        rule = "negatives are ranked by one vector of a query: query_codes must be 0 with negatives.refresh_every_steps"
        require(not self.encoder.query_codes, rule, self.encoder.query_codes)

    def replace(self, **sections: dict) -> "Config":
        """Returns a copy with fields of sections replaced: CONFIG.replace(optimizer={"learning_rate": 1e-5})."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)
