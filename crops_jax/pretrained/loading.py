"""Loads encoders and parameters from Hugging Face folders, whose description crops_jax.pretrained.folder reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from crops_jax.config import Config, EncoderConfig
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError
from crops_jax.models.cross_encoder import abstract_cross_encoder
from crops_jax.models.dual_encoder import abstract_dual_encoder, from_parameters
from crops_jax.models.layers import linear
from crops_jax.models.parameters import place_parameters
from crops_jax.pretrained.dense_modules import read_dense
from crops_jax.pretrained.folder import ModelFolder, describe, locate
from crops_jax.pretrained.resolving import encoder_config, resolved
from crops_jax.pretrained.tensor_files import StoredTensor, open_tensors
from crops_jax.pretrained.tensor_names import from_hugging_face

# The names of the tensors of pooler and head: those of BERT, then those of RoBERTa.
_POOLERS = ("bert.pooler.dense", "pooler.dense", "classifier.dense")
_HEADS = ("classifier", "classifier.out_proj")


def read_parameters(config: Config, *, mesh: Mesh) -> dict[str, Any]:
    """Returns the parameters of a dual encoder that starts from config.encoder.weights, as float32 arrays on `mesh`.

    Every process reads only the parts that its devices hold. If the folder has one tower, both towers start from it.

    Raises InputError if the folder cannot be used.
    """
    folder = describe(locate(config.encoder.weights))
    config = resolved(config, folder)
    with _weights_belong_to(folder):
        return place_parameters(abstract_dual_encoder(config), _stored_parameters(config, folder), mesh)


def read_cross_encoder_parameters(config: EncoderConfig, *, seed: int, mesh: Mesh) -> dict[str, Any]:
    """Returns the parameters of a cross-encoder that starts from config.weights, as float32 arrays on `mesh`.

    The tower is read from the folder. Pooler and head are read too, if they are those of a classifier with one output
    (the form in which sentence-transformers saves cross-encoders); otherwise they are drawn at random from `seed`.

    Raises InputError if the folder cannot be used.
    """
    folder = describe(locate(config.weights))
    tensors = open_tensors(folder.towers[0])
    parameters = {
        "tower": from_hugging_face(tensors, config, source=str(folder.towers[0])),
        **_classifier_layers(tensors, config.width, seed=seed),
    }
    with _weights_belong_to(folder):
        return place_parameters(abstract_cross_encoder(config), parameters, mesh)


def load_encoder(folder_or_hub_name: str | Path, *, max_tokens: int | None = None) -> Encoder:
    """Returns the encoder of a Hugging Face or sentence-transformers folder, or of a hub repository, in float32.

    Pooling, prompts and truncate_dim are those of the folder; without modules.json the pooling is the mean. Vectors
    have unit length even if the folder has no Normalize module, so that dot products are cosines.

    Args:
      folder_or_hub_name: the path of a folder, or the name of a hub repository.
      max_tokens: the number of tokens at which texts are cut; None: the number that sentence-transformers would use.

    Raises InputError if the folder has no supported encoder, and NamedFailure if the hub cannot be reached.
    """
    folder = describe(locate(folder_or_hub_name))
    if not folder.scores_are_cosines:
        raise InputError(
            f"{folder_or_hub_name}: its scores are not cosines (similarity_fn_name) and it has no "
            "Normalize module, so unit vectors would rank documents differently; training can start from it "
            "(--encoder.weights), but it cannot be used unchanged"
        )
    longest = folder.sizes["max_positions"] - folder.sizes["position_offset"]
    if max_tokens is not None and not (isinstance(max_tokens, int) and 3 <= max_tokens <= longest):
        raise InputError(
            f"max_tokens must be a whole number in [3, {longest}] for {folder_or_hub_name}, found {max_tokens}"
        )
    limits = {
        "max_query_tokens": max_tokens or folder.max_query_tokens,
        "max_document_tokens": max_tokens or folder.max_document_tokens,
    }
    config = Config(
        encoder=encoder_config(
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
        trained_dims=(*folder.matryoshka_dims, config.encoder.dim) if folder.matryoshka_dims else None,
        default_dim=folder.truncate_dim,
    )


def _stored_parameters(config: Config, folder: ModelFolder) -> dict[str, Any]:
    """Returns the parameters of a dual encoder as tensors that are still unread in their files."""
    towers = [
        from_hugging_face(open_tensors(tower), config.encoder, source=str(tower)) | read_dense(dense, config.encoder)
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


def _classifier_layers(tensors: Mapping[str, StoredTensor], width: int, *, seed: int) -> dict[str, Any]:
    """Returns pooler and head: those of the folder, or random ones if it has none that fit."""
    rngs = nnx.Rngs(params=seed)
    random = {"pooler": linear(width, width, rngs=rngs), "head": linear(width, 1, rngs=rngs)}
    parameters = {name: nnx.to_pure_dict(nnx.state(layer, nnx.Param)) for name, layer in random.items()}
    for part, outputs, names in (("pooler", width, _POOLERS), ("head", 1, _HEADS)):
        for name in names:
            if f"{name}.weight" not in tensors or f"{name}.bias" not in tensors:
                continue
            kernel = tensors[f"{name}.weight"].T
            # A head of several outputs belongs to another task. A pooler of zeros means no pooler; it could not learn.
            if kernel.shape == (width, outputs) and kernel[...].any():
                parameters[part] = {"kernel": kernel, "bias": tensors[f"{name}.bias"]}
    return parameters
