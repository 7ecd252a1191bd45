"""Who searches: lasting interests, how often, how patiently."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.queries import topic_demand

_ACTIVITY_SHAPE = 1.5
_PATIENCE_CONCENTRATION = 8.0


@dataclass(frozen=True)
class Users:
    user_id: list[str]
    interests: Int[np.ndarray, "users interests"]
    """Distinct topics."""
    interest_shares: Float[np.ndarray, "users interests"]
    sessions_per_day: Float[np.ndarray, "users"]
    patience: Float[np.ndarray, "users"]
    """Chance to search again when unsatisfied."""

    def __len__(self) -> int:
        return len(self.user_id)


def draw_users(constants: WorldConstants, streams: Streams) -> Users:
    """Interests by demand (without repetition), activity gamma-distributed, patience beta-distributed."""
    rng = streams.generator("users")
    count, interests = constants.users, min(constants.interests_per_user, constants.topics)
    # Gumbel top-k: a sample without replacement by demand, for all users at once.
    keys = np.log(topic_demand(constants, streams)) + rng.gumbel(size=(count, constants.topics))
    activity = rng.gamma(_ACTIVITY_SHAPE, constants.sessions_per_user_per_day / _ACTIVITY_SHAPE, count)
    return Users(
        user_id=[f"u{i:06d}" for i in range(count)],
        interests=np.argsort(-keys, axis=1, kind="stable")[:, :interests].astype(np.int32),
        interest_shares=rng.dirichlet(np.ones(interests), count),
        sessions_per_day=activity,
        patience=_draw_patience(constants.patience, count, rng),
    )


def _draw_patience(mean: float, count: int, rng: np.random.Generator) -> np.ndarray:
    if mean in (0.0, 1.0):
        return np.full(count, mean)
    return rng.beta(mean * _PATIENCE_CONCENTRATION, (1 - mean) * _PATIENCE_CONCENTRATION, count)
