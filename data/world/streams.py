"""Random numbers by name, so that no component disturbs another's."""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Streams:
    """Generators of one seed, one for each name.

    Guarantees: the same seed and names give the same numbers, whatever was drawn elsewhere and in what order; other
    names give independent ones (numpy.random.SeedSequence with a spawn key made of the names).
    """

    seed: int

    def generator(self, *names: str | int) -> np.random.Generator:
        """A fresh generator for a component, such as generator("clicks", day)."""
        digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
        key = tuple(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4))
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))
