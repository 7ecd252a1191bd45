"""The candidates that a sampler draws from, and the interface of samplers."""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key


class Candidates(NamedTuple):
    """The nearest documents of each query, in any order, and one of its positives, d+.

    The scores are divided by the temperature, as in the loss. The distributions of TriSampler and SimANS were published
    for dot products without a temperature; from plain cosines they would draw almost uniformly.

    score: the score s(q, d) of each candidate.
    positive_score: the score s(q, d+) of the positive.
    to_positive: the score s(d+, d) of each candidate.
    is_document: False for padding, whose scores can have any value.
    is_positive: True for all known positives of the query.
    """

    score: Float[Array, "queries candidates"]
    positive_score: Float[Array, "queries"]
    to_positive: Float[Array, "queries candidates"]
    is_document: Bool[Array, "queries candidates"]
    is_positive: Bool[Array, "queries candidates"]

    @property
    def is_negative(self) -> Bool[Array, "queries candidates"]:
        """True for the candidates that can be drawn."""
        return self.is_document & ~self.is_positive

    @property
    def above_positive(self) -> Float[Array, "queries candidates"]:
        """The difference s(q, d) - s(q, d+); 0 for candidates that cannot be drawn."""
        # Padding can have infinite scores, so it is replaced before the subtraction.
        positive = self.positive_score[:, None]
        return jnp.where(self.is_negative, self.score, positive) - positive


class Sampler(Protocol):
    """A distribution of negatives. Samplers are hashable, so that they can be static arguments of jitted functions."""

    def __call__(self, candidates: Candidates, key: Key[Array, ""], *, count: int) -> Int32[Array, "queries count"]:
        """Returns the positions of `count` different candidates of each query, in the order in which they were drawn.

        If a query has fewer candidates that can be drawn, the last entries are -1. Known positives and padding are
        never drawn. Equal arguments give equal draws, on any number of devices.
        """
        ...
