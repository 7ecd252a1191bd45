"""The users: their permanent interests, the frequency of their searches, and their patience."""

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
    """The users of the world with their hidden properties."""

    user_id: list[str]
    interests: Int[np.ndarray, "users interests"]
    """The topics that a user is interested in; the topics of a user are distinct."""
    interest_shares: Float[np.ndarray, "users interests"]
    """The share of each interest of a user; rows sum to 1."""
    sessions_per_day: Float[np.ndarray, "users"]
    """The mean number of search sessions in a day."""
    patience: Float[np.ndarray, "users"]
    """The probability that an unsatisfied user searches again."""

    def __len__(self) -> int:
        return len(self.user_id)


def draw_users(constants: WorldConstants, streams: Streams) -> Users:
    """Draws the users: distinct interests by demand, gamma-distributed activity, and beta-distributed patience."""
    rng = streams.generator("users")
    count, interests = constants.users, min(constants.interests_per_user, constants.topics)
    # The Gumbel top-k method draws samples without replacement by demand for all users in one operation.
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
    """Draws from a beta distribution with this mean; a mean of 0 or 1 is constant."""
    if mean in (0.0, 1.0):
        return np.full(count, mean)
    return rng.beta(mean * _PATIENCE_CONCENTRATION, (1 - mean) * _PATIENCE_CONCENTRATION, count)
