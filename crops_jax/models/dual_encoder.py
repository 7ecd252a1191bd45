"""The retriever: a tower for queries, a tower for documents, unit vectors out of both, and a learnt temperature.

Parameter paths, for tables of sharding rules and for checkpoints (below a tower: see crops_jax.models.bert, qwen and
hashed):

    tower/...                                shared_towers = True: one set of weights for both
    query_tower/...  document_tower/...      shared_towers = False
    log_inverse_temperature                  [], float32: t = log(1 / tau)
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import Config, EncoderConfig
from crops_jax.models.bert import Bert
from crops_jax.models.hashed import Hashed
from crops_jax.models.parameters import filled
from crops_jax.models.pooling import Pooling, pool_segments, unit_norm
from crops_jax.models.qwen import Qwen
from crops_jax.text.packing import PackedTexts, segments_per_row

Tower = Literal["query", "document"]

_TOWERS = {"bert": Bert, "qwen2": Qwen, "qwen3": Qwen, "hashed": Hashed}


class DualEncoder(nnx.Module):
    """Queries and documents as unit vectors of one space; their dot product is the score (method.md)."""

    def __init__(self, config: EncoderConfig, *, initial_temperature: float, rngs: nnx.Rngs):
        self.pooling: Pooling = config.pooling
        tower = _TOWERS[config.family]
        if config.shared_towers:
            self.tower = tower(config, rngs=rngs)
        else:
            self.query_tower = tower(config, rngs=rngs)
            self.document_tower = tower(config, rngs=rngs)
        self.log_inverse_temperature = nnx.Param(jnp.asarray(-math.log(initial_temperature), jnp.float32))
        self.shared_towers = config.shared_towers

    def encode_rows(
        self,
        tokens: Int32[Array, "rows row_tokens"],
        segments: Int32[Array, "rows row_tokens"],
        *,
        tower: Tower,
        dropout_key: Key[Array, ""] | None = None,
        flash: Mesh | None = None,
    ) -> Float[Array, "rows segments dim"]:
        """Unit vectors, float32, of all texts of rows; zeros where a segment has no tokens.

        Args:
          tokens, segments: see crops_jax.text.packing.PackedTexts.
          tower: whose weights; with shared towers both are the same.
          dropout_key: a key for dropout at config.dropout; None (evaluation): no dropout.
          flash: devices on which flash attention runs (crops_jax.models.attention.flash); None: plain attention.
        """
        encoder = self.tower if self.shared_towers else self.query_tower if tower == "query" else self.document_tower
        most = segments_per_row(tokens.shape[1])
        if isinstance(encoder, Hashed):
            vectors = encoder(tokens, segments=segments, most=most, dropout_key=dropout_key)
            return unit_norm(vectors.astype(jnp.float32))
        states = encoder(tokens, segments=segments, dropout_key=dropout_key, flash=flash)
        return unit_norm(pool_segments(states, segments, pooling=self.pooling, most=most))

    def encode_packed(
        self,
        texts: PackedTexts,
        *,
        tower: Tower,
        micro_batches: int = 1,
        dropout_key: Key[Array, ""] | None = None,
        flash: Mesh | None = None,
    ) -> Float[Array, "groups texts dim"]:
        """Unit vectors of packed texts; a text that is not there (place -1) becomes zeros.

        Args:
          micro_batches: the rows of each group are encoded in so many parts, one after the other, and again in the
            backward pass, so that the states of one part only are in memory. Must divide the rows. The gradient is
            that of the whole batch (GradCache, Gao et al. 2021, arXiv 2101.06983).
          others: as of `encode_rows`.
        """
        groups, rows, width = texts.tokens.shape

        def encode(tokens: Array, segments: Array, key: Array | None) -> Array:
            vectors = self.encode_rows(
                tokens.reshape(-1, width), segments.reshape(-1, width), tower=tower, dropout_key=key, flash=flash
            )
            return vectors.reshape(groups, -1, vectors.shape[-1])

        if micro_batches == 1:
            vectors = encode(texts.tokens, texts.segments, dropout_key)
        else:
            parts = [
                array.reshape(groups, micro_batches, rows // micro_batches, width).swapaxes(0, 1)
                for array in (texts.tokens, texts.segments)
            ]
            keys = None if dropout_key is None else jax.random.split(dropout_key, micro_batches)
            vectors = jax.lax.map(jax.checkpoint(lambda part: encode(*part)), (*parts, keys))
            vectors = vectors.swapaxes(0, 1).reshape(groups, -1, vectors.shape[-1])
        there = texts.places >= 0
        chosen = jnp.take_along_axis(vectors, jnp.where(there, texts.places, 0)[:, :, None], axis=1)
        return jnp.where(there[:, :, None], chosen, 0)

    def encode_queries(
        self, tokens: Int32[Array, "queries tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "queries dim"]:
        """Unit vectors of queries, one a row, padded with -1; a row of nothing but padding becomes zeros."""
        return self.encode_rows(tokens, jnp.minimum(tokens, 0), tower="query", dropout_key=dropout_key)[:, 0]

    def encode_documents(
        self, tokens: Int32[Array, "documents tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "documents dim"]:
        """Unit vectors of documents; see `encode_queries`."""
        return self.encode_rows(tokens, jnp.minimum(tokens, 0), tower="document", dropout_key=dropout_key)[:, 0]


def abstract_dual_encoder(config: Config) -> DualEncoder:
    """A DualEncoder of shapes without arrays: its structure."""
    return nnx.eval_shape(lambda: random_dual_encoder(config, seed=0))


def from_parameters(config: Config, parameters: Mapping[str, Any]) -> DualEncoder:
    """A DualEncoder with given parameters; neither config.encoder.weights nor a random number is read.

    Args:
      config: sizes.
      parameters: as of `initial_parameters`; layers may be numbered by integers or by strings. They are copied, as
        float32.

    Raises ValueError, naming the path, where a parameter is missing, unknown or of another shape.
    """
    return filled(abstract_dual_encoder(config), parameters)


def random_dual_encoder(config: Config, *, seed: int) -> DualEncoder:
    """A DualEncoder whose parameters are drawn by `seed`."""
    return DualEncoder(config.encoder, initial_temperature=config.loss.initial_temperature, rngs=nnx.Rngs(params=seed))
