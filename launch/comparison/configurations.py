"""The configuration of a cell: the base of its architecture, what its system changes, and the common budget."""

import math

from crops_jax import program
from crops_jax.config import Config
from launch.comparison.arguments import Budget
from launch.comparison.cells import Cell

_UNTRAINED = {"steps": 1, "evaluate_every_steps": 0, "checkpoint_every_steps": 1}
NO_LEARNING = {"learning_rate": 1e-30, "weight_decay": 0.0}
"""An optimizer whose step is too small to change a weight in float32."""
_CHECKPOINTS = 5


def base_configs(budget: Budget) -> dict[str, Config]:
    """Returns the base configuration of each architecture. Raises InputError if one does not load."""
    transformer, hashed = program.load_config(budget.transformer), program.load_config(budget.hashed)
    return {"transformer": transformer, "hashed": hashed, "none": transformer}


def cell_config(cell: Cell, base: Config, *, budget: Budget, factor: float) -> Config:
    """Returns the configuration of a cell.

    Every system takes the same number of steps, and a batch has at most as many tokens as that of the base: with fewer
    documents for each query it has more queries. The dev split is evaluated once, after the last step, so that no
    checkpoint is chosen and every system is measured after the same number of steps.

    Args:
      cell: the system and the seed.
      base: the base configuration of its architecture.
      budget: the number of steps.
      factor: the learning rate as a multiple of that of the base.
    """
    config = base.replace(**cell.system.config)
    config = config.replace(data={"queries_per_batch": equal_tokens(base, config.data.documents_per_query)})
    if not cell.system.trained:
        return config.replace(optimizer=NO_LEARNING, training=_UNTRAINED | {"seed": cell.seed})
    if cell.system.refreshes is not None:
        config = config.replace(negatives=cell.system.refreshes.settings(steps=budget.steps))
    training = measured_at_the_end(budget.steps)
    return config.replace(
        optimizer={"learning_rate": base.optimizer.learning_rate * factor},
        training=training
        | {
            "log_every_steps": min(base.training.log_every_steps, training["checkpoint_every_steps"]),
            "seed": cell.seed,
        },
    )


def measured_at_the_end(steps: int) -> dict[str, int]:
    """Returns the settings of a training whose dev split is evaluated once, after the last step."""
    return {
        "steps": steps,
        "evaluate_every_steps": steps,
        "checkpoint_every_steps": math.ceil(steps / _CHECKPOINTS),
    }


def equal_tokens(base: Config, documents_per_query: int) -> int:
    """Returns the number of queries whose texts have at most the tokens of a batch of the base.

    The tokens of a query and its documents are counted at their maximum. The number is a multiple of 8 if that of the
    base is one, so that it can be split over as many devices.
    """

    def tokens(documents: int) -> int:
        return base.encoder.max_query_tokens + documents * base.encoder.max_document_tokens

    queries, documents = base.data.queries_per_batch, base.data.documents_per_query
    if documents_per_query == documents:
        return queries
    step = 8 if queries % 8 == 0 else 1
    return max(step, queries * tokens(documents) // tokens(documents_per_query) // step * step)
