"""The entities of topics: the persons, products or places that a document is about, and that a user looks for.

Their names are made of syllables. Two entities can have the same name, as persons have, so a name can be ambiguous.
"""

import itertools

import numpy as np
from jaxtyping import Float

from data.world.constants import WorldConstants
from data.world.streams import Streams

NAMES = 3
"""The number of names of an entity."""
_CONSONANTS = "bdfghjklmnprstvwz"
_VOWELS = "aeiou"
_SYLLABLES = tuple("".join(pair) for pair in itertools.product(_CONSONANTS, _VOWELS))
# The names are drawn from this many times as many names as are needed, so a quarter of the names are shared.
_POOL_FACTOR = 3


def draw_names(constants: WorldConstants, streams: Streams, *, taken: tuple[str, ...]) -> np.ndarray:
    """Returns the names of every entity, an array of text [topics, entities, NAMES]; none of them is in `taken`.

    With one entity in a topic, the entity is the topic itself and has no name of its own: [topics, 0, NAMES].
    """
    entities = constants.entities_per_topic if constants.entities_per_topic > 1 else 0
    shape = (constants.topics, entities, NAMES)
    if not entities:
        return np.empty(shape, object)
    rng = streams.generator("entity names")
    pool: dict[str, None] = {}
    wanted, known = _POOL_FACTOR * int(np.prod(shape)), frozenset(taken)
    while len(pool) < wanted:
        drawn = rng.integers(0, len(_SYLLABLES), (wanted, 3))
        pool.update(dict.fromkeys("".join(_SYLLABLES[i] for i in row) for row in drawn))
    names = np.array([name for name in pool if name not in known][:wanted], object)
    # The names of one entity differ: they are consecutive entries of a permutation. Two entities can share a name.
    start = rng.integers(0, len(names), shape[:2])
    return names[(start[..., None] + np.arange(NAMES)) % len(names)]


def entity_shares(constants: WorldConstants) -> Float[np.ndarray, "entities"]:
    """Returns the share of each entity in the documents, and in the demand, of its topic."""
    weights = np.arange(1, constants.entities_per_topic + 1, dtype=np.float64) ** -constants.entity_exponent
    return weights / weights.sum()
