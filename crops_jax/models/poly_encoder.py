"""The head of a Poly-encoder: several context vectors of a query, and a score that attends over them with a document.

Humeau et al., "Poly-encoders: Architectures and Pre-training Strategies for Fast and Accurate Multi-sentence Scoring"
(ICLR 2020, arXiv 1905.01969, section 4.5). With the token states h_1 ... h_N of a query, m learnt codes c_i and the
vector d of a document,

    w_i = softmax over j of <c_i, h_j>        y_i = sum over j of w_ij h_j         m context vectors of the query
    v   = softmax over i of <y_i, d>          score = < sum over i of v_i y_i, d >

Here d and every y_i are divided by their norms, so that <y_i, d> is a cosine, and the second softmax divides the
cosines by the temperature t that the losses divide scores by:

    v   = softmax over i of <y_i, d> / t      score = sum over i of v_i <y_i, d>

The score lies in [-1, 1] like that of a dual encoder. The attention v and score / t are those of the paper for context
vectors and documents of norm 1 / sqrt(t). The sum over i is not normalised again: the score is a mean of cosines. With
one code it is a cosine.

The codes are the parameter query_codes/codes, [m, width] in float32. Their initial components have the standard
deviation width^-1/2, so that the products of a code and layer-normed states have a standard deviation of about 1.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from crops_jax.config import EncoderConfig
from crops_jax.models.pooling import unit_norm

_MASKED = -1e30
_HIGHEST = jax.lax.Precision.HIGHEST


class QueryCodes(nnx.Module):
    """The learnt codes. They map the token states of a query to one context vector for each code."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        initializer = nnx.initializers.normal(stddev=config.width**-0.5)
        self.codes = nnx.Param(initializer(rngs.params(), (config.query_codes, config.width), jnp.float32))

    def __call__(
        self, states: Float[Array, "queries tokens width"], present: Bool[Array, "queries tokens"]
    ) -> Float[Array, "queries codes width"]:
        """Returns the context vectors of queries as float32 unit vectors; a query without tokens gets zeros.

        Args:
          states: the states of the query's tokens.
          present: False for padding, which has no influence.
        """
        states = states.astype(jnp.float32)
        logits = jnp.einsum("cw,qtw->qct", self.codes[...], states, precision=_HIGHEST)
        weights = jax.nn.softmax(jnp.where(present[:, None, :], logits, _MASKED), axis=2) * present[:, None, :]
        return unit_norm(jnp.einsum("qct,qtw->qcw", weights, states, precision=_HIGHEST))


def poly_scores(
    contexts: Float[Array, "queries codes width"],
    documents: Float[Array, "documents width"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, "queries documents"]:
    """Returns the score of every query with every document. The memory is O(queries * codes * documents).

    Args:
      contexts: the context vectors of the queries, unit vectors in float32.
      documents: the unit vectors of the documents, float32.
      temperature: the learnt temperature, positive.
    """
    cosines = jnp.einsum("qcw,dw->qcd", contexts, documents, precision=_HIGHEST)
    return _poly_score(cosines, temperature)


def poly_scores_of_own(
    contexts: Float[Array, "queries codes width"],
    documents: Float[Array, "queries documents width"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, "queries documents"]:
    """Returns the scores of each query with documents of its own; see `poly_scores`."""
    cosines = jnp.einsum("qcw,qdw->qcd", contexts, documents, precision=_HIGHEST)
    return _poly_score(cosines, temperature)


def _poly_score(
    cosines: Float[Array, "queries codes documents"], temperature: Float[Array, ""] | float
) -> Float[Array, "queries documents"]:
    return (jax.nn.softmax(cosines / temperature, axis=1) * cosines).sum(axis=1)
