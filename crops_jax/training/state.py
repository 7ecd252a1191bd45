"""The state of a training run: its fields, its first value, its update, and its form in a checkpoint."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from crops_jax.config import Config, CrossEncoderConfig, OptimizerConfig
from crops_jax.devices import sharding
from crops_jax.losses.log_q import DocumentIntervals, no_intervals
from crops_jax.runs.checkpoints import Checkpoints, Progress
from crops_jax.training.optimizer import make_optimizer, moving_average, updates_done

Step = TypeVar("Step", bound=Callable)


class TrainState(NamedTuple):
    """All values that change from step to step.

    step: the number of optimiser steps up to now, skipped steps included.
    parameters: a nested dictionary, as nnx.to_pure_dict(nnx.state(model, nnx.Param)) returns it.
    optimizer_state: the state of the optax optimiser.
    document_intervals: the intervals at which documents enter batches; None without the logQ correction.
    averaged_parameters: the moving average of the parameters, float32; None when the run keeps none.
    negatives: the numbers of the documents that the last refresh drew for the queries up to the next one, in the order
      of the run; -1 for none. None for runs whose negatives are those of the records.
    """

    step: Int32[Array, ""]
    parameters: dict
    optimizer_state: Any
    document_intervals: DocumentIntervals | None = None
    averaged_parameters: dict | None = None
    negatives: Int32[Array, "positions columns"] | None = None

    @property
    def final_parameters(self) -> dict:
        """The parameters that are evaluated, embedded and exported: the average if the run keeps one."""
        return self.parameters if self.averaged_parameters is None else self.averaged_parameters


@functools.partial(jax.jit, static_argnames=("config", "steps", "mesh"), donate_argnames="parameters")
def initial_state(parameters: dict, config: Config | CrossEncoderConfig, *, steps: int, mesh: Mesh) -> TrainState:
    """Returns the state of step 0. `parameters` are over the mesh (crops_jax.models.parameters) and are donated."""
    state = first_state(parameters, make_optimizer(config.optimizer, steps=steps), config, steps=steps)
    return jax.lax.with_sharding_constraint(state, sharding.tree_shardings(state, mesh))


def abstract_state(model: nnx.Module, config: Config | CrossEncoderConfig, *, steps: int, mesh: Mesh) -> TrainState:
    """Returns the shapes and shardings of a state. model: shapes can stand for its parameters."""
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = make_optimizer(config.optimizer, steps=steps)
    return _over_mesh(jax.eval_shape(lambda: first_state(parameters, optimizer, config, steps=steps)), mesh)


def first_state(
    parameters: dict, optimizer: optax.GradientTransformation, config: Config | CrossEncoderConfig, *, steps: int
) -> TrainState:
    """Returns the state of step 0 of parameters on any device. Its average shares their arrays."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimizer_state=optimizer.init(parameters),
        document_intervals=_no_intervals(config),
        averaged_parameters=parameters if config.optimizer.ema_decay else None,
        negatives=_no_negatives(config, steps=steps),
    )


def after_step(
    before: TrainState,
    updated: TrainState,
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    *,
    config: OptimizerConfig,
) -> TrainState:
    """Returns the state after a step: one more step, and `updated` with its average, if loss and gradient are finite.

    Otherwise only the number of the step changes.

    Args:
      before: the state before the step.
      updated: `before` with the changes of the update, but with the old step and average.
      loss: the loss of the step.
      grad_norm: the global norm of its gradient.
      config: the settings of the optimiser, for the decay of the average.
    """
    if before.averaged_parameters is not None:
        done = updates_done(updated.optimizer_state)
        average = moving_average(before.averaged_parameters, updated.parameters, done, decay=config.ema_decay)
        updated = updated._replace(averaged_parameters=average)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, before)
    return kept._replace(step=before.step + 1)


def jitted_step(step: Step, state: TrainState, *, mesh: Mesh, batch_layout: Any = None) -> Step:
    """Returns a step, (state, batch) to (state, metrics), compiled for a mesh. Its first argument is donated.

    Args:
      step: the function to compile.
      state: the shapes and shardings of a state, as `abstract_state` returns them.
      mesh: the mesh; the batch is divided over its data axes, and metrics are on all of its devices.
      batch_layout: the shardings of a batch that is divided in another way.
    """
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    jitted: Any = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state_shardings, sharding.batch_sharding(mesh) if batch_layout is None else batch_layout),
        out_shardings=(state_shardings, sharding.replicated(mesh)),
    )
    return jitted


def save_state(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    """Starts to save a state under the number of its step; see `crops_jax.runs.checkpoints.Checkpoints.save`."""
    checkpoints.save(int(state.step), _as_items(state), progress)


def restore_state(checkpoints: Checkpoints, step: int, like: TrainState, mesh: Mesh) -> tuple[TrainState, Progress]:
    """Returns the state of a step, laid out over `mesh`, and its progress. The mesh can differ from the saved one.

    Args:
      checkpoints: the checkpoints of the run.
      step: the step of the checkpoint.
      like: a state of the same run, for its structure; its leaves are arrays or shapes.
      mesh: the mesh of the restored state.

    Raises InputError when the checkpoint has another configuration or is damaged.
    """
    items, progress = checkpoints.restore(step, _as_items(_over_mesh(like, mesh)))
    optimizer = items["optimizer"]
    state = TrainState(
        step=optimizer["step"],
        parameters=items["parameters"],
        optimizer_state=optimizer["state"],
        document_intervals=optimizer.get("document_intervals"),
        averaged_parameters=items.get("average"),
        negatives=optimizer.get("negatives"),
    )
    return state, progress


def _as_items(state: TrainState) -> dict[str, Any]:
    """Returns the state as the trees of arrays that a checkpoint keeps."""
    optimizer = {"step": state.step, "state": state.optimizer_state}
    if state.document_intervals is not None:
        optimizer["document_intervals"] = state.document_intervals
    if state.negatives is not None:
        optimizer["negatives"] = state.negatives
    items = {"parameters": state.parameters, "optimizer": optimizer}
    return items if state.averaged_parameters is None else {**items, "average": state.averaged_parameters}


def _over_mesh(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the shapes of a state, with the sharding of each array over the mesh."""
    return jax.tree.map(
        lambda leaf, layout: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
        state,
        sharding.tree_shardings(state, mesh),
    )


def _no_intervals(config: Config | CrossEncoderConfig) -> DocumentIntervals | None:
    if isinstance(config, Config) and config.loss.log_q_correction:
        return no_intervals(config.loss.log_q_buckets)
    return None


def _no_negatives(config: Config | CrossEncoderConfig, *, steps: int) -> Int32[Array, "positions columns"] | None:
    """Returns no negatives for the queries of the longest part of a run between two refreshes."""
    if not isinstance(config, Config) or config.negatives.warmup_steps >= steps:
        return None
    longest = min(config.negatives.refresh_every_steps, steps - config.negatives.warmup_steps)
    drawn = config.data.documents_per_query - config.data.positives_per_query
    return jnp.full((longest * config.data.queries_per_batch, drawn), -1, jnp.int32) if longest else None
