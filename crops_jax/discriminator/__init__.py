"""The relevance discriminator theta(query, document): the probability that a document answers a query.

It decides which candidates become positives. This module imports only the parts that do not import JAX; the
cross-encoder imports it.
"""

from crops_jax.discriminator.calibration import alpha_sweep, expected_calibration_error
from crops_jax.discriminator.interface import DESCRIPTION, Discriminator, describe
from crops_jax.discriminator.lexical import LexicalDiscriminator
from crops_jax.discriminator.loading import load

__all__ = [
    "DESCRIPTION",
    "Discriminator",
    "LexicalDiscriminator",
    "alpha_sweep",
    "describe",
    "expected_calibration_error",
    "load",
]
