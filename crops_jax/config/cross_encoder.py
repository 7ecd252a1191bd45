"""The frozen dataclasses that configure a cross-encoder as the relevance discriminator (theta).

The sections encoder, optimizer, mesh and training are those of crops_jax.config.
"""

import dataclasses
from dataclasses import dataclass, field

from crops_jax.config.encoder import EncoderConfig
from crops_jax.config.experiment import MeshConfig, OptimizerConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """The query-document pairs and their batches."""

    pairs_per_batch: int = 32
    """The number of pairs of a global batch."""
    max_tokens: int = 128
    """The maximum number of tokens of [CLS] query [SEP] document [SEP]. The query is kept whole first, then the
    document, so that a query loses its end only when it alone is too long."""
    max_pairs: int = 400_000
    """The maximum number of training pairs. When there are more, the pairs with the smallest SHA-256 are taken."""

    def __post_init__(self) -> None:
        for name in ("pairs_per_batch", "max_pairs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"configuration: {name} must be positive, found {getattr(self, name)}")
        if self.max_tokens < 8:
            raise ValueError(f"configuration: max_tokens must be at least 8, found {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class CrossEncoderConfig:
    """All settings that decide what a cross-encoder learns."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The tower. The fields pooling, shared_towers and max_*_tokens concern dual encoders only and have no effect."""
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
        """Returns a copy with fields of sections replaced; see `crops_jax.config.Config.replace`."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)
