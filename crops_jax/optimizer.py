"""AdamW with linear warm-up, cosine decay and clipping by the global norm."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from crops_jax.config import OptimizerConfig
from crops_jax.sharding import path_name

# Last names of the parameters that weight decay would only pull off their natural scale.
_NOT_DECAYED = {"bias", "scale", "log_inverse_temperature"}


def learning_rate_schedule(config: OptimizerConfig, *, steps: int) -> Callable[[Any], Any]:
    """Learning rate of update 0, 1, ..., steps - 1: rises linearly over the first warmup_fraction, falls as a cosine.

    The first update already has a rate above 0, the last one learning_rate * final_fraction or a little above it.
    """
    warmup = min(round(config.warmup_fraction * steps), steps - 1)
    cosine = optax.cosine_decay_schedule(
        config.learning_rate, decay_steps=max(steps - warmup, 1), alpha=config.final_fraction
    )
    rise = optax.linear_schedule(
        config.learning_rate / (warmup + 1), config.learning_rate, transition_steps=max(warmup, 1)
    )
    return optax.join_schedules([rise, cosine], [warmup]) if warmup else cosine


def make_optimizer(config: OptimizerConfig, *, steps: int) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) behind clipping; weight decay spares biases, layer norms and the temperature."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, steps=steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    )


def decay_mask(parameters: Any) -> Any:
    """True for each parameter that weight decay applies to, in the structure of `parameters`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).rsplit("/", 1)[-1] not in _NOT_DECAYED, parameters
    )
