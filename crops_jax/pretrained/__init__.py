"""Reads model folders of Hugging Face and writes folders that sentence-transformers loads.

config = resolve_config(config)              takes sizes and pooling from config.encoder.weights
encoder = load_encoder("folder or hub name") reads an encoder
export(encoder, folder)                      writes a folder that sentence-transformers loads unchanged
"""

from typing import TYPE_CHECKING

from crops_jax.lazy_exports import loaded_on_use

if TYPE_CHECKING:
    from crops_jax.pretrained.exporting import export, export_obstacle
    from crops_jax.pretrained.loading import (
        load_encoder,
        read_cross_encoder_parameters,
        read_parameters,
    )
    from crops_jax.pretrained.resolving import resolve_config

__all__ = [
    "export",
    "export_obstacle",
    "load_encoder",
    "read_cross_encoder_parameters",
    "read_parameters",
    "resolve_config",
]

__getattr__ = loaded_on_use(
    __name__,
    {
        "exporting": ("export", "export_obstacle"),
        "loading": ("load_encoder", "read_cross_encoder_parameters", "read_parameters"),
        "resolving": ("resolve_config",),
    },
)
