"""SimANS: negatives whose scores are near the score of the positive."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from crops_jax.negatives.candidates import Candidates
from crops_jax.negatives.gumbel_draws import draw


@dataclass(frozen=True, kw_only=True)
class SimAns:
    """Draws negatives with p proportional to exp(-a (s(q, d) - s(q, d+) - b)^2).

    Documents with scores far below the positive have small gradients, and documents far above it are often unknown
    positives. The sampler is that of Zhou et al. (EMNLP 2022, arXiv 2210.11773). Raises ValueError if a is not positive
    and finite, or b is not finite.
    """

    a: float = 1.0
    b: float = 0.0
    """The difference of scores at which a candidate is most probable."""

    def __post_init__(self) -> None:
        if not 0 < self.a < math.inf:
            raise ValueError(f"SimANS: a must be positive and finite, found {self.a}")
        if not math.isfinite(self.b):
            raise ValueError(f"SimANS: b must be finite, found {self.b}")

    def log_weights(self, candidates: Candidates) -> Float[Array, "queries candidates"]:
        """Returns log p up to a constant of each row; minus infinity for candidates that are no negatives."""
        distance = candidates.above_positive - self.b
        return jnp.where(candidates.is_negative, -self.a * distance**2, -jnp.inf)

    def __call__(self, candidates: Candidates, key: Key[Array, ""], *, count: int) -> Int32[Array, "queries count"]:
        """See `crops_jax.negatives.Sampler`."""
        return draw(key, self.log_weights(candidates), count=count)
