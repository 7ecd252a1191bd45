"""Frozen dataclasses of one experiment. configs/ holds one module per experiment with a CONFIG of type Config.

Validation only in __post_init__: a configuration is never changed behind its author's back.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal


def _require(condition: bool, rule: str, found: object) -> None:
    if not condition:
        raise ValueError(f"configuration: {rule}, found {found}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A text tower and what is made of its token states."""

    family: Literal["bert"] = "bert"
    vocabulary_size: int = 30522
    """Rows of the token embedding; records of a tokenizer with more tokens are refused."""
    width: int = 384
    layers: int = 6
    heads: int = 12
    feed_forward_width: int = 1536
    max_positions: int = 512
    position_offset: int = 0
    """Row of the position table that the first token gets: 0 for BERT, 2 for RoBERTa and XLM-R."""
    type_vocabulary_size: int = 2
    layer_norm_epsilon: float = 1e-12
    dropout: float = 0.0
    pooling: Literal["mean", "first", "last"] = "mean"
    shared_towers: bool = True
    """One set of weights for queries and documents (the paper leaves it open)."""
    max_query_tokens: int = 32
    max_document_tokens: int = 128
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    weights: str = ""
    """A Hugging Face folder or hub name whose weights and sizes the training starts from; empty: from scratch."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "width", "layers", "heads", "feed_forward_width", "max_positions"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        _require(self.width % self.heads == 0, "width must be a multiple of heads", f"{self.width} and {self.heads}")
        _require(self.type_vocabulary_size > 0, "type_vocabulary_size must be positive", self.type_vocabulary_size)
        _require(self.position_offset >= 0, "position_offset must not be negative", self.position_offset)
        _require(0 <= self.dropout < 1, "dropout must lie in [0, 1)", self.dropout)
        longest = self.max_positions - self.position_offset
        for name in ("max_query_tokens", "max_document_tokens"):
            value = getattr(self, name)
            rule = f"{name} must lie in [3, max_positions - position_offset] = [3, {longest}]"
            _require(3 <= value <= longest, rule, value)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Global batches."""

    queries_per_batch: int = 64
    documents_per_query: int = 4
    """Documents of a record whose text goes into one batch; chosen among those written, by (seed, step)."""
    labels_per_query: int = 32
    """k of SparseLabels: entries above level 0 that one query may have in one batch. Overflow is counted."""
    shuffle: bool = True
    workers: int = 0
    """Worker processes that read ahead; 0 reads in the training process. Never changes what is read."""

    def __post_init__(self) -> None:
        for name in ("queries_per_batch", "documents_per_query", "labels_per_query"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        _require(self.workers >= 0, "workers must not be negative", self.workers)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    name: Literal["h_infonce"] = "h_infonce"
    implementation: Literal["auto", "dense", "streaming"] = "auto"
    initial_temperature: float = 0.05
    learn_temperature: bool = True
    minimum_temperature: float = 0.01
    maximum_temperature: float = 1.0

    def __post_init__(self) -> None:
        _require(
            0 < self.minimum_temperature <= self.initial_temperature <= self.maximum_temperature,
            "0 < minimum_temperature <= initial_temperature <= maximum_temperature",
            f"{self.minimum_temperature}, {self.initial_temperature}, {self.maximum_temperature}",
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 2e-5
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1
    final_fraction: float = 0.0
    """Learning rate at the last step, as a fraction of learning_rate."""
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "epsilon"):
            _require(math.isfinite(getattr(self, name)), f"{name} must be finite", getattr(self, name))
        _require(self.learning_rate > 0, "learning_rate must be positive", self.learning_rate)
        _require(self.weight_decay >= 0, "weight_decay must not be negative", self.weight_decay)
        _require(0 <= self.warmup_fraction < 1, "warmup_fraction must lie in [0, 1)", self.warmup_fraction)
        _require(0 <= self.final_fraction <= 1, "final_fraction must lie in [0, 1]", self.final_fraction)
        _require(self.clip_norm > 0, "clip_norm must be positive", self.clip_norm)
        _require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, "b1 and b2 must lie in [0, 1)", f"{self.b1}, {self.b2}")
        _require(self.epsilon > 0, "epsilon must be positive", self.epsilon)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; -1 takes all that the other axis leaves. May change when a run is resumed."""

    data: int = -1
    model: int = 1

    def __post_init__(self) -> None:
        for name in ("data", "model"):
            value = getattr(self, name)
            _require(value == -1 or value > 0, f"mesh.{name} must be positive or -1", value)
        _require(not (self.data == -1 and self.model == -1), "only one mesh axis may be -1", "both")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length and cadence. Logging, evaluation and checkpoint cadence may change when a run is resumed."""

    steps: int = 0
    """Optimiser steps; 0: as many as `epochs` takes."""
    epochs: float = 1.0
    log_every_steps: int = 10
    evaluate_every_steps: int = 100
    """Recall on the dev split, for keep-best; 0: never."""
    checkpoint_every_steps: int = 100
    keep_last: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        _require(math.isfinite(self.epochs), "epochs must be finite", self.epochs)
        _require(self.steps >= 0, "steps must not be negative", self.steps)
        _require(
            self.steps > 0 or self.epochs > 0, "either steps or epochs must be positive", f"{self.steps}, {self.epochs}"
        )
        for name in ("log_every_steps", "checkpoint_every_steps", "keep_last"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        _require(self.evaluate_every_steps >= 0, "evaluate_every_steps must not be negative", self.evaluate_every_steps)
        _require(self.seed >= 0, "seed must not be negative", self.seed)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a run learns."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def replace(self, **sections: dict) -> "Config":
        """A copy with fields of sections replaced: CONFIG.replace(optimizer={"learning_rate": 1e-5})."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)
