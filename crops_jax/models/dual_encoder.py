"""The dual encoder, a retriever: a tower for queries and a tower for documents, and a learnt temperature.

Both towers return unit vectors. The parameter paths, which sharding rules and checkpoints use, are
(the modules of the families list those below a tower):

    tower/...                                shared_towers = True: one set of weights for both towers
    query_tower/...  document_tower/...      shared_towers = False
    tower/dense/i/{kernel,bias}              the Dense modules after the pooling, if any, in each tower
    log_inverse_temperature                  [], float32: t = log(1 / tau)
    query_codes/codes                        a Poly-encoder, config.query_codes > 0 (crops_jax.models.poly_encoder)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import Config, EncoderConfig
from crops_jax.models.bert import Bert
from crops_jax.models.gemma import Gemma
from crops_jax.models.hashed import Hashed
from crops_jax.models.modernbert import ModernBert
from crops_jax.models.parameters import fill_module
from crops_jax.models.poly_encoder import QueryCodes
from crops_jax.models.pooling import Pooling, dense_modules, pool_segments, through_dense, unit_norm
from crops_jax.models.qwen import Qwen
from crops_jax.text.packing import PackedTexts, segments_per_row

Tower = Literal["query", "document"]

_TOWERS = {
    "bert": Bert,
    "mpnet": Bert,
    "nomic_bert": Bert,
    "modernbert": ModernBert,
    "gemma3": Gemma,
    "qwen2": Qwen,
    "qwen3": Qwen,
    "mistral": Qwen,
    "hashed": Hashed,
}


class DualEncoder(nnx.Module):
    """A dual encoder. It maps queries and documents to unit vectors of one space; their dot product is the score.

    With config.query_codes it is a Poly-encoder: a query has a context vector for each code, and the score is that of
    `crops_jax.models.poly_encoder.poly_scores`.
    """

    def __init__(self, config: EncoderConfig, *, initial_temperature: float, rngs: nnx.Rngs):
        self.pooling: Pooling = config.pooling
        self.dense_activations = config.dense_activations
        if config.shared_towers:
            self.tower = _random_tower(config, rngs)
        else:
            self.query_tower = _random_tower(config, rngs)
            self.document_tower = _random_tower(config, rngs)
        self.log_inverse_temperature = nnx.Param(jnp.asarray(-math.log(initial_temperature), jnp.float32))
        self.shared_towers = config.shared_towers
        self.max_query_tokens = config.max_query_tokens
        # The codes are drawn last, so that the towers of a seed are those of a dual encoder.
        self.query_codes = QueryCodes(config, rngs=rngs) if config.query_codes else None

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
        encoder = self._tower(tower)
        if isinstance(encoder, Hashed):
            max_segments = segments_per_row(tokens.shape[1])
            vectors = encoder(tokens, segments=segments, max_segments=max_segments, dropout_key=dropout_key)
            return unit_norm(vectors.astype(jnp.float32))
        states = encoder(tokens, segments=segments, dropout_key=dropout_key, flash=flash)
        return self._pooled(states, segments, dense=encoder.dense if self.dense_activations else ())

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

        def encode(tokens: Array, segments: Array, key: Array | None) -> Array:
            return self.encode_rows(tokens, segments, tower=tower, dropout_key=key, flash=flash)

        vectors = _over_rows(encode, texts, micro_batches=micro_batches, dropout_key=dropout_key)
        return _of_places(vectors.reshape(len(vectors), -1, vectors.shape[-1]), texts)

    def packed_states(
        self,
        texts: PackedTexts,
        *,
        tower: Tower,
        micro_batches: int = 1,
        dropout_key: Key[Array, ""] | None = None,
        flash: Mesh | None = None,
    ) -> Float[Array, "groups rows row_tokens width"]:
        """Returns the states of all tokens of packed texts; see `encode_packed`. Hashed towers have none."""

        def encode(tokens: Array, segments: Array, key: Array | None) -> Array:
            return self._tower(tower)(tokens, segments=segments, dropout_key=key, flash=flash)

        return _over_rows(encode, texts, micro_batches=micro_batches, dropout_key=dropout_key)

    def pooled_states(
        self, states: Float[Array, "groups rows row_tokens width"], texts: PackedTexts
    ) -> Float[Array, "groups texts width"]:
        """Returns the unit vectors of packed texts from the states of their tokens; a missing text gets zeros.

        The model must be a Poly-encoder, which has no Dense modules.
        """
        groups, _, width = texts.tokens.shape
        vectors = self._pooled(states.reshape(-1, width, states.shape[-1]), texts.segments.reshape(-1, width))
        return _of_places(vectors.reshape(groups, -1, vectors.shape[-1]), texts)

    def packed_contexts(
        self, states: Float[Array, "groups rows row_tokens width"], queries: PackedTexts
    ) -> Float[Array, "groups queries codes width"]:
        """Returns the context vectors of packed queries from the states of all tokens; a missing query gets zeros.

        The model must be a Poly-encoder. A query has at most config.max_query_tokens tokens.
        """
        assert self.query_codes is not None
        groups, _, width = queries.tokens.shape
        row, segment = jnp.divmod(jnp.maximum(queries.places, 0)[:, :, None], segments_per_row(width))
        # The tokens of a text follow one another. Only as many as a query can have are gathered from its row.
        of_row = jnp.take_along_axis(queries.segments, row, axis=1)
        start = (of_row == segment).argmax(axis=2, keepdims=True)
        tokens = start + jnp.arange(min(self.max_query_tokens, width))[None, None, :]
        within = jnp.minimum(tokens, width - 1)
        own = (tokens < width) & (jnp.take_along_axis(of_row, within, axis=2) == segment)
        present = own & (queries.places >= 0)[:, :, None]
        flat = states.reshape(groups, -1, states.shape[-1])
        chosen = jnp.take_along_axis(flat, (row * width + within).reshape(groups, -1, 1), axis=1)
        longest = present.shape[2]
        contexts = self.query_codes(chosen.reshape(-1, longest, flat.shape[-1]), present.reshape(-1, longest))
        return contexts.reshape(groups, -1, *contexts.shape[1:])

    def encode_contexts(self, tokens: Int32[Array, "queries tokens"]) -> Float[Array, "queries codes width"]:
        """Returns the context vectors of queries, one in each row, padded with -1; the model must be a Poly-encoder."""
        assert self.query_codes is not None
        states = self._tower("query")(tokens, segments=jnp.minimum(tokens, 0))
        return self.query_codes(states, tokens >= 0)

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

    def _tower(self, tower: Tower) -> Any:
        return self.tower if self.shared_towers else self.query_tower if tower == "query" else self.document_tower

    def _pooled(self, states: Array, segments: Array, *, dense: Sequence = ()) -> Float[Array, "rows segments dim"]:
        max_segments = segments_per_row(segments.shape[1])
        vectors = pool_segments(states, segments, pooling=self.pooling, max_segments=max_segments)
        if dense:
            vectors = through_dense(vectors, segments, layers=dense, activations=self.dense_activations)
        return unit_norm(vectors)


def _random_tower(config: EncoderConfig, rngs: nnx.Rngs) -> Any:
    """Returns a tower, to which its Dense modules belong: what is trained or frozen with it, and its learning rates."""
    tower: Any = _TOWERS[config.family](config, rngs=rngs)
    if config.dense_widths:
        tower.dense = dense_modules(config, rngs=rngs)
    return tower


def _over_rows(
    encode: Callable[[Array, Array, Array | None], Array],
    texts: PackedTexts,
    *,
    micro_batches: int,
    dropout_key: Key[Array, ""] | None,
) -> Float[Array, "groups rows ..."]:
    """Returns encode(tokens, segments, key) of the rows of all groups, in `micro_batches` parts one after the other."""
    groups, rows, width = texts.tokens.shape

    def encode_groups(tokens: Array, segments: Array, key: Array | None) -> Array:
        encoded = encode(tokens.reshape(-1, width), segments.reshape(-1, width), key)
        return encoded.reshape(groups, -1, *encoded.shape[1:])

    if micro_batches == 1:
        return encode_groups(texts.tokens, texts.segments, dropout_key)
    parts = [
        array.reshape(groups, micro_batches, rows // micro_batches, width).swapaxes(0, 1)
        for array in (texts.tokens, texts.segments)
    ]
    keys = None if dropout_key is None else jax.random.split(dropout_key, micro_batches)
    encoded = jax.lax.map(jax.checkpoint(lambda part: encode_groups(*part)), (*parts, keys))
    return encoded.swapaxes(0, 1).reshape(groups, rows, *encoded.shape[3:])


def _of_places(vectors: Float[Array, "groups places dim"], texts: PackedTexts) -> Float[Array, "groups texts dim"]:
    """Returns the vector at the place of each text; zeros for a missing text."""
    present = texts.places >= 0
    chosen = jnp.take_along_axis(vectors, jnp.where(present, texts.places, 0)[:, :, None], axis=1)
    return jnp.where(present[:, :, None], chosen, 0)


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
