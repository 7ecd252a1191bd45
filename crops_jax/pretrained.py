"""Hugging Face folders in, sentence-transformers folders out.

    config = resolve_config(config)              sizes and pooling of config.encoder.weights
    encoder = load_encoder("folder or hub name")
    export(encoder, folder)                      a folder that sentence-transformers loads as it is

What such folders say is read by crops_jax.model_folder, and written by crops_jax.exported_folder.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from crops_jax.config import Config, EncoderConfig
from crops_jax.dense_modules import read_dense
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError
from crops_jax.exported_folder import export, export_obstacle
from crops_jax.model_folder import ModelFolder, describe, locate
from crops_jax.models.dual_encoder import abstract_dual_encoder, from_parameters
from crops_jax.models.hugging_face_names import from_hugging_face
from crops_jax.models.parameters import placed
from crops_jax.weight_files import open_tensors

__all__ = ["export", "export_obstacle", "load_encoder", "read_parameters", "resolve_config"]


def resolve_config(config: Config) -> Config:
    """`config` with the sizes and the pooling of config.encoder.weights; as it is when weights == "".

    Raises InputError when the folder cannot be used, or contradicts the rest of the configuration.
    """
    if not config.encoder.weights:
        return config
    return _resolve(config, describe(locate(config.encoder.weights)))


def read_parameters(config: Config, *, mesh: Mesh) -> dict[str, Any]:
    """The parameters of a dual encoder that starts from config.encoder.weights, each read where it lies on `mesh`.

    Both towers start from the folder's. Raises InputError when it cannot be used.
    """
    folder = describe(locate(config.encoder.weights))
    config = _resolve(config, folder)
    with _weights_belong_to(folder):
        return placed(abstract_dual_encoder(config), _stored_parameters(config, folder), mesh)


def load_encoder(folder_or_hub_name: str | Path, *, max_tokens: int | None = None) -> Encoder:
    """The encoder of a Hugging Face or sentence-transformers folder, or of a hub repository, in float32.

    Pooling and prompts are the folder's; a folder without modules.json is pooled by the mean. Vectors have unit
    length, whether the folder has a Normalize module or not, so that dot products are its cosines.

    Args:
      max_tokens: where texts are cut; None: where sentence-transformers would.

    Raises InputError when the folder is not one of a supported encoder, and NamedFailure when the hub cannot be
    reached.
    """
    folder = describe(locate(folder_or_hub_name))
    if not folder.scores_are_cosines:
        raise InputError(
            f"{folder_or_hub_name}: its scores are not cosines (similarity_fn_name) and it has no "
            "Normalize module, so unit vectors would rank otherwise; it can be trained from "
            "(--encoder.weights), not used as it is"
        )
    longest = folder.sizes["max_positions"] - folder.sizes["position_offset"]
    if max_tokens is not None and not 3 <= max_tokens <= longest:
        raise InputError(f"max_tokens must lie in [3, {longest}] for {folder_or_hub_name}, found {max_tokens}")
    limits = {
        "max_query_tokens": max_tokens or folder.max_query_tokens,
        "max_document_tokens": max_tokens or folder.max_document_tokens,
    }
    config = Config(
        encoder=_encoder_config(
            EncoderConfig(), folder, weights=str(folder_or_hub_name), shared_towers=len(folder.towers) == 1, **limits
        )
    )
    with _weights_belong_to(folder):
        model = from_parameters(config, _stored_parameters(config, folder))
    return Encoder(
        model,
        config=config,
        tokenizer_folder=folder.tokenizer,
        prompts=folder.prompts,
        default_prompt=folder.default_prompt,
        trained_dims=(*folder.matryoshka_dims, folder.sizes["width"]) if folder.matryoshka_dims else None,
    )


def _resolve(config: Config, folder: ModelFolder) -> Config:
    if len(folder.towers) > 1 and config.encoder.shared_towers:
        raise InputError(
            f"{config.encoder.weights} has a tower for queries and one for documents, and "
            "encoder.shared_towers is set; unset it"
        )
    encoder = _encoder_config(config.encoder, folder)
    if too_wide := [dim for dim in config.loss.matryoshka_dims if dim >= encoder.width]:
        raise InputError(
            f"loss.matryoshka_dims: {too_wide[0]} is not below {encoder.width}, the width of {encoder.weights}"
        )
    return dataclasses.replace(config, encoder=encoder)


def _encoder_config(encoder: EncoderConfig, folder: ModelFolder, **fields: Any) -> EncoderConfig:
    try:
        return dataclasses.replace(encoder, **folder.sizes, **fields)
    except ValueError as error:
        raise InputError(f"{folder.towers[0]}: {error}") from error


def _stored_parameters(config: Config, folder: ModelFolder) -> dict[str, Any]:
    """Those of a dual encoder, still in their files."""
    towers = [
        from_hugging_face(open_tensors(tower), config.encoder, source=str(tower)) | read_dense(dense)
        for tower, dense in zip(folder.towers, folder.dense, strict=True)
    ]
    names = ["tower"] if config.encoder.shared_towers else ["query_tower", "document_tower"]
    parameters = {name: towers[min(i, len(towers) - 1)] for i, name in enumerate(names)}
    return {**parameters, "log_inverse_temperature": np.float32(-np.log(config.loss.initial_temperature))}


@contextmanager
def _weights_belong_to(folder: ModelFolder) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InputError(
            f"{folder.towers[0]}: {error}; the weights do not belong to the config.json beside them"
        ) from error
