"""The configuration of one experiment. Every field is checked when the configuration is built."""

from crops_jax.config.cross_encoder import CrossEncoderConfig, PairsConfig
from crops_jax.config.encoder import EncoderConfig
from crops_jax.config.experiment import Config, DataConfig, MeshConfig, OptimizerConfig, TrainingConfig
from crops_jax.config.loss import LossConfig
from crops_jax.config.negatives import NegativesConfig

__all__ = [
    "Config",
    "CrossEncoderConfig",
    "DataConfig",
    "EncoderConfig",
    "LossConfig",
    "MeshConfig",
    "NegativesConfig",
    "OptimizerConfig",
    "PairsConfig",
    "TrainingConfig",
]
