"""Training of a cross-encoder: the task that the loop (crops_jax.training.loop) runs for it.

The loss is the binary cross-entropy of logits z to soft targets t in [0, 1], softplus(z) - t z, as a mean over the
pairs of a batch. Each step is a function of (configuration, pairs, step).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float64

from crops_jax import pretrained
from crops_jax.config import CrossEncoderConfig, EncoderConfig
from crops_jax.devices import sharding
from crops_jax.input_pipeline.pair_batches import PairBatch, pair_batches, steps_per_epoch
from crops_jax.models.cross_encoder import CrossEncoder, abstract_cross_encoder
from crops_jax.models.parameters import random_parameters
from crops_jax.runs.checkpoints import Checkpoints, restore_parameters
from crops_jax.runs.log import Stopwatch, finite_number
from crops_jax.text.pair_tokens import TokenizedPairs
from crops_jax.training.loop import Evaluation, Refresh, TrainingLoop
from crops_jax.training.optimizer import learning_rate_schedule, make_optimizer, updates_done
from crops_jax.training.state import TrainState, abstract_state, after_step, jitted_step


class PairMetrics(NamedTuple):
    """The metrics of one step, all of them scalars. learning_rate is the rate that the step used."""

    loss: Float[Array, ""]
    learning_rate: Float[Array, ""]
    grad_norm: Float[Array, ""]


def train(
    config: CrossEncoderConfig, pairs: TokenizedPairs, targets: Float64[np.ndarray, "pairs"], *, run: Path
) -> dict[str, Any]:
    """Trains until the last step. It starts from the newest checkpoint of `run` if the run has one.

    Args:
      config: the configuration; when it names weights, its sizes are those of their folder.
      pairs, targets: the training data, in the same order in every call for this run.
      run: the folder of an open run.

    Returns:
      The parameters after the last step, on the host.

    Raises:
      InputError: when the batch does not fit the machine, or the weights cannot be read.
      Interrupted: after SIGTERM or SIGINT; a checkpoint of the step that was running is saved.
      NamedFailure: when more losses or gradients are not finite than the run can skip, or the disk is full.
    """
    steps = total_steps(len(pairs), config)
    with closing(Checkpoints(run, config, keep_last=config.training.keep_last)) as checkpoints:
        if checkpoints.latest() != steps:
            watch = Stopwatch()
            task = _CrossEncoderTask(config, pairs, targets, steps=steps)
            TrainingLoop(task, run=run, checkpoints=checkpoints, watch=watch).run()
    return restore_parameters(run, which="last")


def total_steps(pairs: int, config: CrossEncoderConfig) -> int:
    """Returns the number of optimiser steps of a run: training.steps, or the steps of training.epochs, rounded up."""
    if config.training.steps:
        return config.training.steps
    per_epoch = steps_per_epoch(pairs, pairs_per_batch=config.pairs.pairs_per_batch)
    return max(1, int(np.ceil(config.training.epochs * per_epoch)))


def check_machine(config: CrossEncoderConfig) -> Mesh:
    """Returns the mesh. Raises InputError when the mesh or the batch does not fit the devices of this machine."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.pairs.pairs_per_batch, mesh, flag="--pairs-per-batch")
    return mesh


def make_pair_step(
    model: CrossEncoder, config: CrossEncoderConfig, *, steps: int, mesh: Mesh
) -> Callable[[TrainState, PairBatch], tuple[TrainState, PairMetrics]]:
    """Returns the compiled step, whose first argument is donated. JAX compiles it once for each row width.

    Dropout is a function of (seed, step).

    Args:
      model: the model, of which only the structure is used; shapes can stand for its parameters.
      config: the settings of the optimiser, the dropout and the seed.
      steps: the length of the run, which the learning rate depends on.
      mesh: a mesh of crops_jax.devices.sharding.make_mesh; pairs are divided over its data axes.
    """
    graph, _, others = nnx.split(model, nnx.Param, ...)
    optimizer = make_optimizer(config.optimizer, steps=steps)
    schedule = learning_rate_schedule(config.optimizer, steps=steps)

    def loss_function(parameters: dict, batch: PairBatch, step: Array) -> Array:
        state = nnx.State(jax.tree.map(nnx.Param, parameters))
        encoder: Any = nnx.merge(graph, state, others, copy=True)
        key = None
        if config.encoder.dropout:
            key = jax.random.fold_in(jax.random.key(config.training.seed), step)
        with sharding.traced_over(mesh):
            logits = encoder(batch.tokens, batch.token_types, dropout_key=key)
        losses = jax.nn.softplus(logits) - batch.targets * logits
        return (losses * batch.weights).sum() / jnp.sum(batch.weights)

    def pair_step(state: TrainState, batch: PairBatch) -> tuple[TrainState, PairMetrics]:
        loss, gradients = jax.value_and_grad(loss_function)(state.parameters, batch, state.step)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.parameters)
        updated: Any = optax.apply_updates(state.parameters, updates)
        learning_rate = jnp.asarray(schedule(updates_done(state.optimizer_state)))
        metrics = PairMetrics(loss, learning_rate, optax.global_norm(gradients))
        after = state._replace(parameters=updated, optimizer_state=optimizer_state)
        return after_step(state, after, metrics.loss, metrics.grad_norm, config=config.optimizer), metrics

    return jitted_step(pair_step, abstract_state(model, config, steps=steps, mesh=mesh), mesh=mesh)


class _CrossEncoderTask:
    """The crops_jax.training.loop.Task of a cross-encoder."""

    unit = "pairs"
    learning_rate_flag = "--learning-rate"
    nonfinite_advice = f"a lower {learning_rate_flag} may help, in a new run"
    evaluation: Evaluation | None = None
    refresh: Refresh | None = None
    describe_batch = None

    def __init__(
        self, config: CrossEncoderConfig, pairs: TokenizedPairs, targets: Float64[np.ndarray, "pairs"], *, steps: int
    ):
        self.config, self._pairs, self._targets, self.steps = config, pairs, targets, steps
        self.mesh = check_machine(config)
        self.model = abstract_cross_encoder(config.encoder)
        self.step = make_pair_step(self.model, config, steps=steps, mesh=self.mesh)
        self.examples_per_step = config.pairs.pairs_per_batch
        self.details = f"pairs: {len(pairs)}"

    def initial_parameters(self) -> dict:
        return initial_parameters(self.config.encoder, seed=self.config.training.seed, mesh=self.mesh)

    def batches(self, first_step: int, state: TrainState) -> Iterator[PairBatch]:
        feed = pair_batches(
            self._pairs,
            self._targets,
            pairs_per_batch=self.examples_per_step,
            seed=self.config.training.seed,
            start_step=first_step,
            num_steps=self.steps,
        )
        return (jax.device_put(batch, sharding.batch_sharding(self.mesh)) for batch in feed)

    def sums(self, metrics: PairMetrics, *, skipped: bool) -> dict[str, int | float]:
        return {}

    def fields(self, metrics: PairMetrics, sums: Mapping[str, int | float], *, skipped: int) -> dict[str, Any]:
        numbers = {name: finite_number(value) for name, value in metrics._asdict().items()}
        # Training divides the logits by 1. The temperature is fitted after the training.
        return {"temperature": 1.0, **numbers, "skipped_steps": skipped}

    def speeds(self, sums: Mapping[str, int | float], *, steps: int, seconds: float) -> dict[str, float]:
        return {}


def initial_parameters(config: EncoderConfig, *, seed: int, mesh: Mesh) -> dict[str, Any]:
    """Returns the parameters that training starts from, each made or read on its devices of `mesh`.

    They are random, drawn with `seed`, or, when config.weights is set, the weights of that folder
    (`pretrained.read_cross_encoder_parameters`).

    Args:
      config: the configuration; when it names weights, its sizes are those of their folder.

    Returns a nested dictionary like that of nnx.to_pure_dict(nnx.state(model, nnx.Param)). Raises InputError when the
    folder cannot be used.
    """
    if not config.weights:
        return random_parameters(lambda: CrossEncoder(config, rngs=nnx.Rngs(params=seed)), mesh)
    return pretrained.read_cross_encoder_parameters(config, seed=seed, mesh=mesh)
