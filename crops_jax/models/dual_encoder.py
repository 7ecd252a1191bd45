"""The retriever: a tower for queries, a tower for documents, unit vectors out of both, and a learnt temperature.

Parameter paths, for tables of sharding rules and for checkpoints (below a tower: see crops_jax.models.bert):

    tower/...                                shared_towers = True: one set of weights for both
    query_tower/...  document_tower/...      shared_towers = False
    log_inverse_temperature                  [], float32: t = log(1 / tau)
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import Config, EncoderConfig
from crops_jax.models.bert import Bert
from crops_jax.models.pooling import Pooling, pool, unit_norm


class DualEncoder(nnx.Module):
    """Queries and documents as unit vectors of one space; their dot product is the score (method.md)."""

    def __init__(self, config: EncoderConfig, *, initial_temperature: float, rngs: nnx.Rngs):
        self.pooling: Pooling = config.pooling
        if config.shared_towers:
            self.tower = Bert(config, rngs=rngs)
        else:
            self.query_tower = Bert(config, rngs=rngs)
            self.document_tower = Bert(config, rngs=rngs)
        self.log_inverse_temperature = nnx.Param(jnp.asarray(-math.log(initial_temperature), jnp.float32))
        self.shared_towers = config.shared_towers

    def encode_queries(
        self, tokens: Int32[Array, "queries tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "queries dim"]:
        """Unit vectors, float32, of queries padded with -1; a row of nothing but padding becomes zeros.

        dropout_key: a key for dropout at config.dropout; None (evaluation): no dropout.
        """
        return self._encode(self.tower if self.shared_towers else self.query_tower, tokens, dropout_key)

    def encode_documents(
        self, tokens: Int32[Array, "documents tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "documents dim"]:
        """Unit vectors of documents; see `encode_queries`."""
        return self._encode(self.tower if self.shared_towers else self.document_tower, tokens, dropout_key)

    def _encode(self, tower: Bert, tokens: Array, dropout_key: Array | None) -> Array:
        return unit_norm(pool(tower(tokens, dropout_key=dropout_key), tokens >= 0, pooling=self.pooling))


def create_dual_encoder(config: Config, *, seed: int) -> DualEncoder:
    """A DualEncoder, random by `seed` or, when config.encoder.weights is set, with that folder's weights.

    With weights, both towers start from them; sizes and pooling are the folder's (`pretrained.resolve_config`).
    Raises InputError when the folder cannot be used.
    """
    if config.encoder.weights:
        from crops_jax import pretrained  # it builds on this module

        return pretrained.create_from_weights(config)
    return DualEncoder(config.encoder, initial_temperature=config.loss.initial_temperature, rngs=nnx.Rngs(params=seed))


def from_parameters(config: Config, parameters: Mapping[str, Any]) -> DualEncoder:
    """A DualEncoder with given parameters; neither config.encoder.weights nor a random number is read.

    Args:
      config: sizes.
      parameters: nested dictionary as of nnx.to_pure_dict(nnx.state(model, nnx.Param)); layers may be numbered by
        integers or by strings. Arrays are copied, as float32.

    Raises ValueError, naming the path, where a parameter is missing, unknown or of another shape.
    """
    abstract = nnx.eval_shape(
        lambda: DualEncoder(
            config.encoder, initial_temperature=config.loss.initial_temperature, rngs=nnx.Rngs(params=0)
        )
    )
    graph, state = nnx.split(abstract)
    given = {_path(path): value for path, value in jax.tree_util.tree_leaves_with_path(dict(parameters))}
    expected = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))}
    for path in sorted(set(given) ^ set(expected)):
        raise ValueError(f"parameter {path} is {'unknown' if path in given else 'missing'}")
    for path, leaf in expected.items():
        if tuple(given[path].shape) != tuple(leaf.shape):
            raise ValueError(f"parameter {path} has shape {tuple(given[path].shape)}, expected {tuple(leaf.shape)}")

    # Copies: towers that start from one array must not share a buffer that a train step donates.
    filled = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.array(given[_path(path)], jnp.float32, copy=True), nnx.to_pure_dict(state)
    )
    nnx.replace_by_pure_dict(state, filled)
    return nnx.merge(graph, state)


def _path(keys: tuple) -> str:
    return "/".join(str(key.key) for key in keys)
