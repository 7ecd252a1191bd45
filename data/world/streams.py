"""Random numbers by name, so that a change of one component does not change the random numbers of another."""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Streams:
    """The random generators of one seed, one for each name.

    The same seed and names always produce the same numbers; they do not depend on other draws or on their order.
    Different names produce independent numbers (numpy.random.SeedSequence with a spawn key made of the names).
    """

    seed: int

    def generator(self, *names: str | int) -> np.random.Generator:
        """Returns a new generator for a component, such as generator("clicks", day)."""
        digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
        key = tuple(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4))
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))
