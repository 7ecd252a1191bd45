"""The interface of the relevance discriminator: theta(query, document), the probability that the document answers.

Theta decides which candidates become positives. CroPS (arXiv 2511.15443) calls it a lightweight discriminator, and
accepts a pair if theta > alpha = 0.6. The lexical discriminator needs only the logs (crops_jax.discriminator.lexical).
The cross-encoder imports JAX, so it is imported only when one is loaded (crops_jax.discriminator.cross_encoder).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from crops_jax.artifacts.json_fields import read_object
from crops_jax.errors import InputError

DESCRIPTION = "discriminator.json"
"""The name of the file in a discriminator's folder that describes it and names its kind."""


class Discriminator(Protocol):
    """A model that returns calibrated relevance probabilities of query-document pairs."""

    pairs_at_once: int
    """The recommended maximum number of pairs in one call of `score`."""

    @property
    def fingerprint(self) -> str | None:
        """The SHA-256 of all that the scores depend on; None if scoring again costs less than a cache of scores."""
        ...

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """Returns theta of each pair.

        Args:
          queries: the query of each pair in any form; scores are those of the normalised form.
          documents: the document of each pair, as crops_jax.text.document_text returns it. Repeated texts cost little
            time if they are the same object.

        Returns:
          Probabilities in [0, 1]. The probability of a pair does not depend on the other pairs.
        """
        ...

    def save(self, folder: Path | str) -> None:
        """Writes the files that `load` reads."""
        ...


def describe(folder: Path) -> dict:
    """Returns the description in a discriminator's folder. Raises InputError if the folder has none."""
    file = folder / DESCRIPTION
    if not file.is_file():
        raise InputError(f"{folder}: it has no {DESCRIPTION}, so it holds no discriminator; check the path")
    return read_object(file, remedy="fit it again")
