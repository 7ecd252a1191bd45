"""AdamW with linear warm-up, cosine decay, clipping by the global norm, and rates for each layer and the temperature.

The module also computes the moving average of the weights.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from crops_jax.config import OptimizerConfig
from crops_jax.devices.sharding import path_name

TEMPERATURE = "log_inverse_temperature"
"""The name of the parameter of a dual encoder that is the logarithm of 1 / temperature."""

# The last names of the parameters without weight decay, which would only pull them off their natural scale.
_NOT_DECAYED = {"bias", "scale", TEMPERATURE}
_LAYER = re.compile(r"(?P<tower>|.*/)layers/(?P<layer>\d+)/")
# The names of the parameters that a tower uses before its first layer.
_BEFORE_LAYERS = {"token_embedding", "position_embedding", "token_type_embedding", "embedding_norm", "feature_tables"}


def learning_rate_schedule(config: OptimizerConfig, *, steps: int) -> Callable[[Any], Any]:
    """Returns the learning rate as a function of the update 0, 1, ..., steps - 1.

    It rises linearly over the first warmup_fraction of the updates, and then falls as a cosine. The first update has a
    rate above 0, and the last one has learning_rate * final_fraction or a little more.
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
    """Returns AdamW (arXiv 1711.05101) after clipping. Biases, layer norms and the temperature have no weight decay.

    The update of each parameter, weight decay included, is multiplied by its factor of `rate_multipliers`.
    """
    parts = [
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, steps=steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    ]
    temperature = config.temperature_learning_rate / config.learning_rate

    def multiplied(updates: Any, _: Any) -> Any:
        factors = rate_multipliers(updates, layer_decay=config.layer_decay, temperature=temperature)
        return jax.tree.map(lambda one, factor: one * factor, updates, factors)

    return optax.chain(*parts, optax.stateless(multiplied))


def decay_mask(parameters: Any) -> Any:
    """Returns, in the structure of `parameters`, True for each parameter that weight decay applies to."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).rsplit("/", 1)[-1] not in _NOT_DECAYED, parameters
    )


def rate_multipliers(parameters: Any, *, layer_decay: float, temperature: float = 1.0) -> Any:
    """Returns the factor of each parameter's learning rate, in the structure of `parameters`.

    In a tower of L layers, layer i, counted from 1, has the factor layer_decay^(L - i), and the embeddings have
    layer_decay^L. Parameters after the last layer and heads have 1. The method is that of Howard and Ruder, ULMFiT
    (arXiv 1801.06146). The learnt temperature has the factor `temperature`.
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)]
    layers: dict[str, int] = {}
    for match in filter(None, map(_LAYER.match, names)):
        layers[match["tower"]] = max(layers.get(match["tower"], 0), int(match["layer"]) + 1)

    def factor(path: Any, _: Any) -> float:
        name = path_name(path)
        return temperature if name == TEMPERATURE else layer_decay ** _layers_after(name, layers)

    return jax.tree_util.tree_map_with_path(factor, parameters)


def updates_done(optimizer_state: Any) -> Int32[Array, ""]:
    """Returns the number of updates in a state of `make_optimizer`: the steps up to now without the skipped ones."""

    def is_adam(part: Any) -> bool:
        return isinstance(part, optax.ScaleByAdamState)

    [adam] = filter(is_adam, jax.tree.leaves(optimizer_state, is_leaf=is_adam))
    return adam.count


def moving_average(average: Any, parameters: Any, updates: Int32[Array, ""], *, decay: float) -> Any:
    """Returns the exponential moving average of the weights (Polyak and Juditsky 1992) after one more update.

        a_n = d_n a_(n-1) + (1 - d_n) p_n,    d_n = min(decay, (1 + n) / (10 + n))

    During the first updates the average therefore covers the newest (10 + n) / 9 of them, and the initial weights fade
    quickly.

    Args:
      average: a_(n-1), float32.
      parameters: p_n, the parameters after the update.
      updates: n, counted from 1.
      decay: the largest value of d_n.
    """
    done = updates.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + done) / (10 + done))
    return jax.tree.map(lambda old, new: old + share * (new.astype(jnp.float32) - old), average, parameters)


def _layers_after(name: str, layers: dict[str, int]) -> int:
    """Returns the number of layers that follow a parameter in its tower."""
    if match := _LAYER.match(name):
        return layers[match["tower"]] - 1 - int(match["layer"])
    for tower, count in layers.items():
        if name.startswith(tower) and name.removeprefix(tower).split("/")[0] in _BEFORE_LAYERS:
            return count
    return 0
