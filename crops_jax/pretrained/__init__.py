"""Model folders of Hugging Face in, folders for sentence-transformers out.

config = resolve_config(config)              sizes and pooling of config.encoder.weights
encoder = load_encoder("folder or hub name")
export(encoder, folder)                      a folder that sentence-transformers loads as it is
"""

from crops_jax.pretrained.exporting import export, export_obstacle
from crops_jax.pretrained.loading import (
    load_encoder,
    read_cross_encoder_parameters,
    read_parameters,
    resolve_config,
)

__all__ = [
    "export",
    "export_obstacle",
    "load_encoder",
    "read_cross_encoder_parameters",
    "read_parameters",
    "resolve_config",
]
