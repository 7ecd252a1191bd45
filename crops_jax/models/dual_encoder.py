"""The dual encoder, a retriever: a tower for queries and a tower for documents, and a learnt temperature.

Both towers return unit vectors. The parameter paths, which sharding rules and checkpoints use, are
(crops_jax.models.bert, qwen and hashed list those below a tower):

    tower/...                                shared_towers = True: one set of weights for both towers
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
from crops_jax.models.parameters import fill_module
from crops_jax.models.pooling import Pooling, pool_segments, unit_norm
from crops_jax.models.qwen import Qwen
from crops_jax.text.packing import PackedTexts, segments_per_row

Tower = Literal["query", "document"]

_TOWERS = {"bert": Bert, "qwen2": Qwen, "qwen3": Qwen, "hashed": Hashed}


class DualEncoder(nnx.Module):
    """A dual encoder. It maps queries and documents to unit vectors of one space; their dot product is the score."""

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
        """Returns the unit vectors of all texts of the rows as float32; segments without tokens get zeros.

        Args:
          tokens, segments: see crops_jax.text.packing.PackedTexts.
          tower: the tower whose weights are used; shared towers have the same weights.
          dropout_key: the key of dropout at the rate config.dropout; None (evaluation): no dropout.
          flash: the devices on which flash attention runs (crops_jax.models.attention.flash); None: plain attention.
        """
        encoder = self.tower if self.shared_towers else self.query_tower if tower == "query" else self.document_tower
        max_segments = segments_per_row(tokens.shape[1])
        if isinstance(encoder, Hashed):
            vectors = encoder(tokens, segments=segments, max_segments=max_segments, dropout_key=dropout_key)
            return unit_norm(vectors.astype(jnp.float32))
        states = encoder(tokens, segments=segments, dropout_key=dropout_key, flash=flash)
        return unit_norm(pool_segments(states, segments, pooling=self.pooling, max_segments=max_segments))

    def encode_packed(
        self,
        texts: PackedTexts,
        *,
        tower: Tower,
        micro_batches: int = 1,
        dropout_key: Key[Array, ""] | None = None,
        flash: Mesh | None = None,
    ) -> Float[Array, "groups texts dim"]:
        """Returns the unit vectors of packed texts as float32; a missing text (its entry in `places` is -1) gets zeros.

        Args:
          texts: the texts, see crops_jax.text.packing.PackedTexts.
          micro_batches: the number of parts into which the rows of each group are split; it must divide the rows. The
            parts are encoded one after the other, and again in the backward pass, so that only the states of one part
            are in memory. The gradient is that of the whole batch (GradCache, Gao et al. 2021, arXiv 2101.06983).
          tower, dropout_key, flash: see `encode_rows`.
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
        present = texts.places >= 0
        chosen = jnp.take_along_axis(vectors, jnp.where(present, texts.places, 0)[:, :, None], axis=1)
        return jnp.where(present[:, :, None], chosen, 0)

    def encode_queries(
        self, tokens: Int32[Array, "queries tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "queries dim"]:
        """Returns the unit vectors of queries, one in each row, padded with -1; a row of only padding gets zeros."""
        return self.encode_rows(tokens, jnp.minimum(tokens, 0), tower="query", dropout_key=dropout_key)[:, 0]

    def encode_documents(
        self, tokens: Int32[Array, "documents tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "documents dim"]:
        """Returns the unit vectors of documents; see `encode_queries`."""
        return self.encode_rows(tokens, jnp.minimum(tokens, 0), tower="document", dropout_key=dropout_key)[:, 0]


def abstract_dual_encoder(config: Config) -> DualEncoder:
    """Returns a DualEncoder that has shapes but no arrays: only its structure."""
    return nnx.eval_shape(lambda: random_dual_encoder(config, seed=0))


def from_parameters(config: Config, parameters: Mapping[str, Any]) -> DualEncoder:
    """Returns a DualEncoder with these parameters; it reads neither config.encoder.weights nor random numbers.

    Args:
      config: the sizes of the model.
      parameters: nested dictionaries by the paths above; integers or strings can number the layers. The parameters are
        copied as float32.

    Raises ValueError, naming the path, if a parameter is missing, unknown or of another shape.
    """
    return fill_module(abstract_dual_encoder(config), parameters)


def random_dual_encoder(config: Config, *, seed: int) -> DualEncoder:
    """Returns a DualEncoder whose parameters are drawn from `seed`."""
    return DualEncoder(config.encoder, initial_temperature=config.loss.initial_temperature, rngs=nnx.Rngs(params=seed))
