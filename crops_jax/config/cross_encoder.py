"""Frozen dataclasses of one cross-encoder discriminator, in the sections of crops_jax.config."""

import dataclasses
from dataclasses import dataclass, field

from crops_jax.config.experiment import EncoderConfig, MeshConfig, OptimizerConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Query-document pairs and their batches."""

    pairs_per_batch: int = 32
    max_tokens: int = 128
    """Of [CLS] query [SEP] document [SEP]: the query is kept whole first, then the document."""
    max_pairs: int = 400_000
    """Where there are more training pairs, those with the least SHA-256 are taken."""

    def __post_init__(self) -> None:
        for name in ("pairs_per_batch", "max_pairs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"configuration: {name} must be positive, found {getattr(self, name)}")
        if self.max_tokens < 8:
            raise ValueError(f"configuration: max_tokens must be at least 8, found {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class CrossEncoderConfig:
    """Everything that decides what a cross-encoder learns."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The tower; pooling, towers and token limits of a dual encoder decide nothing here."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.encoder.family != "bert":
            raise ValueError(f"configuration: a cross-encoder is of the BERT family, found {self.encoder.family}")
        if self.encoder.attention == "flash":
            raise ValueError("configuration: attention of a cross-encoder is plain, found encoder.attention flash")
        longest = self.encoder.max_positions - self.encoder.position_offset
        if self.pairs.max_tokens > longest:
            raise ValueError(
                f"configuration: max_tokens must be at most max_positions - position_offset = {longest}, found "
                f"{self.pairs.max_tokens}"
            )

    def replace(self, **sections: dict) -> "CrossEncoderConfig":
        """A copy with fields of sections replaced; see `crops_jax.config.Config.replace`."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)
