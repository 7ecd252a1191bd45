"""TriSampler: negatives that form a triangle with the query and its positive."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from crops_jax.negatives.candidates import Candidates
from crops_jax.negatives.gumbel_draws import draw, with_noise


@dataclass(frozen=True, kw_only=True)
class TriSampler:
    """Draws negatives in two stages, by the quasi-triangular principle.

        1.  M candidates without replacement,  p proportional to exp(-(s(q, d) - s(q, d+))^2 / scale)
        2.  among those M,                     p proportional to ReLU(s(d+, d) - s(q, d))

    The first stage draws documents that are about as near to the query as the positive is. The second stage prefers
    those that are nearer to the positive than to the query. If the ReLU of all M is 0, the second stage uses the
    distribution of the first. If the ReLU of fewer than `count` documents is above 0, all of them are drawn, and then
    others by the distribution of the first stage. The sampler is that of Yang et al. (WWW 2024, arXiv 2402.11855), who
    take scale = 4. Raises ValueError if a field is not positive and finite.
    """

    first_stage: int = 50
    """The number M of documents that the first stage draws."""
    scale: float = 4.0

    def __post_init__(self) -> None:
        if self.first_stage < 1:
            raise ValueError(f"TriSampler: first_stage must be at least 1, found {self.first_stage}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"TriSampler: scale must be positive and finite, found {self.scale}")

    def log_weights(self, candidates: Candidates) -> Float[Array, "queries candidates"]:
        """Returns log p of the first stage up to a constant of each row; minus infinity if it is 0."""
        return jnp.where(candidates.is_negative, -(candidates.above_positive**2) / self.scale, -jnp.inf)

    def second_log_weights(self, candidates: Candidates) -> Float[Array, "queries candidates"]:
        """Returns log p of the second stage up to a constant of each row; minus infinity if it is 0."""
        nearer = jnp.where(candidates.is_negative, candidates.to_positive - candidates.score, 0.0)
        return jnp.where(nearer > 0, jnp.log(jnp.where(nearer > 0, nearer, 1.0)), -jnp.inf)

    def __call__(self, candidates: Candidates, key: Key[Array, ""], *, count: int) -> Int32[Array, "queries count"]:
        """See `crops_jax.negatives.Sampler`. At most M candidates are drawn."""
        if count < 1:
            raise ValueError(f"negatives: count must be at least 1, found {count}")
        first_key, second_key = jax.random.split(key)
        first = self.log_weights(candidates)
        chosen = draw(first_key, first, count=self.first_stage)
        position = jnp.maximum(chosen, 0)
        first, second = (
            jnp.where(chosen >= 0, jnp.take_along_axis(weights, position, axis=1), -jnp.inf)
            for weights in (first, self.second_log_weights(candidates))
        )
        # Candidates with a probability in the second stage come first, and then the others by the first stage.
        given = second > -jnp.inf
        others = jnp.where(given, -jnp.inf, first)
        noisy = jnp.where(given, with_noise(second_key, second), with_noise(second_key, others))
        order = jnp.lexsort((-noisy, ~given), axis=1)[:, :count]
        drawn = jnp.take_along_axis(chosen, order, axis=1)
        return jnp.pad(drawn, ((0, 0), (0, count - drawn.shape[1])), constant_values=-1)
