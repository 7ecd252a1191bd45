"""theta(query, document) in [0, 1]: does the document answer the query? It decides which candidates become positives.

CroPS (arXiv 2511.15443) calls it a lightweight discriminator and passes a pair when theta > alpha = 0.6.
The lexical one needs nothing but the logs (crops_jax.discriminator.lexical); the cross-encoder starts JAX and is
imported only where one is loaded (crops_jax.discriminator.cross_encoder).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from crops_jax.artifacts.json_fields import read_object
from crops_jax.errors import InputError

DESCRIPTION = "discriminator.json"
"""The file of a discriminator's folder that names its kind."""


class Discriminator(Protocol):
    """A calibrated relevance probability of query-document pairs."""

    pairs_at_once: int
    """How many pairs one call to `score` should bring at most."""

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of what decides the scores; None where scoring again costs less than to remember scores."""
        ...

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """theta of each pair.

        Args:
          queries: one a pair, in any form; the normalised one is used.
          documents: one a pair, as crops_jax.text.document_text gives them. Repeated texts cost little when they are
            the same object.

        Returns:
          Probabilities in [0, 1]. A pair's does not depend on the others.
        """
        ...

    def save(self, folder: Path | str) -> None:
        """Writes what `load` reads."""
        ...


def describe(folder: Path) -> dict:
    """The description in a discriminator's folder. Raises InputError where there is none."""
    file = folder / DESCRIPTION
    if not file.is_file():
        raise InputError(f"{folder}: no {DESCRIPTION} in it, so it holds no discriminator; check the path")
    return read_object(file, remedy="fit it again")
