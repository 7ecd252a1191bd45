"""The configuration of one experiment. Every field is checked when the configuration is built."""

from crops_jax.config.cross_encoder import CrossEncoderConfig, PairsConfig
from crops_jax.config.experiment import (
    Config,
    DataConfig,
    EncoderConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "Config",
    "CrossEncoderConfig",
    "DataConfig",
    "EncoderConfig",
    "LossConfig",
    "MeshConfig",
    "OptimizerConfig",
    "PairsConfig",
    "TrainingConfig",
]
