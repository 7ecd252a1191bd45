"""The cross-encoder. It maps a query and a document in one row of tokens to one logit.

Nogueira and Cho, "Passage Re-ranking with BERT" (arXiv 1901.04085): a BERT-family tower encodes
[CLS] query [SEP] document [SEP], with token type 1 from the document on. BERT's pooler (a dense layer and tanh) and a
linear head map the state of the first token to a logit, and the relevance discriminator (theta) is

    theta(q, d) = sigmoid(head . tanh(pooler . state_of_first_token) / T)

with the temperature T. The parameter paths are (w = width; crops_jax.models.bert lists those below the tower):

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
from crops_jax.models.parameters import fill_module


class CrossEncoder(nnx.Module):
    """A cross-encoder. It returns one logit of each pair. Padding is token -1 at the right; it changes no logit."""

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
        """Returns the logits as float32; the temperature is not applied.

        Args:
          tokens: token ids padded with -1.
          token_types: 0 or 1; a tower that has only one type uses 0 for all tokens.
          dropout_key: the key of dropout at the rate config.dropout; None: no dropout.
        """
        tower_key, pooled_key = split(dropout_key, 2)
        types = jnp.minimum(token_types, self.types - 1)
        states = self.tower(tokens, token_types=types, dropout_key=tower_key)
        pooled = jnp.tanh(self.pooler(states[:, 0].astype(jnp.float32)))
        return self.head(drop(pooled, self.dropout, pooled_key))[:, 0]


def abstract_cross_encoder(config: EncoderConfig) -> CrossEncoder:
    """Returns a CrossEncoder that has shapes but no arrays: only its structure."""
    return nnx.eval_shape(lambda: CrossEncoder(config, rngs=nnx.Rngs(params=0)))


def from_parameters(config: EncoderConfig, parameters: Mapping[str, Any]) -> CrossEncoder:
    """Returns a CrossEncoder with these parameters; it reads neither config.weights nor random numbers.

    Raises ValueError, naming the path, if a parameter is missing, unknown or of another shape.
    """
    return fill_module(abstract_cross_encoder(config), parameters)
