"""Completes a configuration with what the folder of config.encoder.weights decides: sizes and pooling.

JAX is not loaded, so that a program can check its arguments before it begins.
"""

import dataclasses
from typing import Any

from crops_jax.config import Config, EncoderConfig
from crops_jax.errors import InputError
from crops_jax.pretrained.folder import ModelFolder, describe, locate


def resolve_config(config: Config) -> Config:
    """Returns `config` with the sizes and the pooling of config.encoder.weights, or unchanged if weights == "".

    Raises InputError if the folder cannot be used, or contradicts the rest of the configuration.
    """
    if not config.encoder.weights:
        return config
    return resolved(config, describe(locate(config.encoder.weights)))


def resolved(config: Config, folder: ModelFolder) -> Config:
    """Does what `resolve_config` does, with the description of the folder."""
    if len(folder.towers) > 1 and config.encoder.shared_towers:
        raise InputError(
            f"{config.encoder.weights} has a tower for queries and one for documents, and "
            "encoder.shared_towers is set; unset it"
        )
    encoder = encoder_config(config.encoder, folder)
    if too_wide := [dim for dim in config.loss.matryoshka_dims if dim >= encoder.dim]:
        raise InputError(
            f"loss.matryoshka_dims: {too_wide[0]} is not below {encoder.dim}, the length of the vectors of "
            f"{encoder.weights}"
        )
    return dataclasses.replace(config, encoder=encoder)


def encoder_config(encoder: EncoderConfig, folder: ModelFolder, **fields: Any) -> EncoderConfig:
    """Returns the configuration of an encoder with the fields that a folder decides, and with further `fields`.

    Raises InputError if they contradict the other fields.
    """
    try:
        return dataclasses.replace(encoder, **folder.sizes, **fields)
    except ValueError as error:
        raise InputError(f"{folder.towers[0]}: {error}") from error
