"""The cross-encoder: query and document in one row of tokens, one logit out.

Nogueira and Cho, "Passage Re-ranking with BERT" (arXiv 1901.04085): [CLS] query [SEP] document [SEP] passes a
BERT-family tower, with token type 1 from the document on; the state of the first token passes BERT's pooler, a dense
layer and tanh, and a linear head.

    theta(q, d) = sigmoid(head . tanh(pooler . state_of_first_token) / T)

Parameter paths (below the tower: see crops_jax.models.bert; w = width):

    tower/...
    pooler/{kernel,bias}    [w, w], [w]
    head/{kernel,bias}      [w, 1], [1]
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import EncoderConfig
from crops_jax.models.bert import Bert
from crops_jax.models.layers import drop, linear, split
from crops_jax.models.parameters import filled


class CrossEncoder(nnx.Module):
    """One logit of each pair. Padding is token -1, at the right; it changes the logit of no pair."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.types = config.type_vocabulary_size
        self.tower = Bert(config, rngs=rngs)
        self.pooler = linear(config.width, config.width, rngs=rngs)
        self.head = linear(config.width, 1, rngs=rngs)

    def __call__(
        self,
        tokens: Int32[Array, "pairs tokens"],
        token_types: Int32[Array, "pairs tokens"],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "pairs"]:
        """Logits, float32, before any temperature.

        Args:
          tokens: ids padded with -1.
          token_types: 0 or 1; a tower with one type only takes all as 0.
          dropout_key: a key for dropout at config.dropout; None: no dropout.
        """
        tower_key, pooled_key = split(dropout_key, 2)
        types = jnp.minimum(token_types, self.types - 1)
        states = self.tower(tokens, token_types=types, dropout_key=tower_key)
        pooled = jnp.tanh(self.pooler(states[:, 0].astype(jnp.float32)))
        return self.head(drop(pooled, self.dropout, pooled_key))[:, 0]


def abstract_cross_encoder(config: EncoderConfig) -> CrossEncoder:
    """A CrossEncoder of shapes without arrays: its structure."""
    return nnx.eval_shape(lambda: CrossEncoder(config, rngs=nnx.Rngs(params=0)))


def from_parameters(config: EncoderConfig, parameters: Mapping[str, Any]) -> CrossEncoder:
    """A CrossEncoder with given parameters; neither config.weights nor a random number is read.

    Raises ValueError, naming the path, where a parameter is missing, unknown or of another shape.
    """
    return filled(abstract_cross_encoder(config), parameters)
