"""Negatives that are drawn uniformly among the nearest documents."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from crops_jax.negatives.candidates import Candidates
from crops_jax.negatives.gumbel_draws import draw


@dataclass(frozen=True, kw_only=True)
class UniformSampler:
    """Draws uniformly among the `top` nearest documents of a query, less its positives.

    The positives are part of the `top` documents, so that fewer negatives than `top` can remain. This is the sampler of
    ANCE (Xiong et al., ICLR 2021, arXiv 2007.00808). Raises ValueError if top is not positive.
    """

    top: int = 200

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"negatives: top must be at least 1, found {self.top}")

    def log_weights(self, candidates: Candidates) -> Float[Array, "queries candidates"]:
        """Returns 0 for negatives among the nearest documents and minus infinity for all other candidates.

        Candidates with equal scores are ordered by position.
        """
        farthest_last = jnp.where(candidates.is_document, -candidates.score, jnp.inf)
        rank = jnp.argsort(jnp.argsort(farthest_last, axis=1, stable=True), axis=1)
        return jnp.where(candidates.is_negative & (rank < self.top), 0.0, -jnp.inf)

    def __call__(self, candidates: Candidates, key: Key[Array, ""], *, count: int) -> Int32[Array, "queries count"]:
        """See `crops_jax.negatives.Sampler`."""
        return draw(key, self.log_weights(candidates), count=count)
