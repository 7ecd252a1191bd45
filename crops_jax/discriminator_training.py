"""The training loop of a cross-encoder: killed at any moment and started again, a run ends as if it had not been.

Loss: binary cross-entropy to soft targets t in [0, 1], from logits z: softplus(z) - t z, the mean over the pairs of a
batch. All that a step does follows from (configuration, pairs, step).
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float64
from tqdm import tqdm

from crops_jax import checkpoint, sharding
from crops_jax.checkpoint import Checkpoints, Progress
from crops_jax.cross_encoder_config import CrossEncoderConfig
from crops_jax.errors import Interrupted
from crops_jax.models.cross_encoder import CrossEncoder, abstract_cross_encoder, initial_parameters
from crops_jax.optimizer import learning_rate_schedule, make_optimizer, updates_done
from crops_jax.pair_batches import PairBatch, pair_batches, steps_per_epoch
from crops_jax.pair_tokens import TokenizedPairs
from crops_jax.profiling import ProfiledSteps
from crops_jax.run_guards import NonFiniteSteps, check_parameters, full_disk_is_named, stop_signal
from crops_jax.run_log import RunLog, Stopwatch, finite_number
from crops_jax.train_step import TrainState, abstract_state, after_step, initial_state

_FLAG = "--learning-rate"


class PairMetrics(NamedTuple):
    """Of one step, scalars; learning_rate is that which the step used."""

    loss: Float[Array, ""]
    learning_rate: Float[Array, ""]
    grad_norm: Float[Array, ""]


def train(
    config: CrossEncoderConfig, pairs: TokenizedPairs, targets: Float64[np.ndarray, "pairs"], *, run: Path
) -> dict[str, Any]:
    """Trains until the last step, from the newest checkpoint of `run` on if there is one.

    Args:
      config: with weights, its sizes are the folder's.
      pairs, targets: to be trained on, in the same order whenever the run is called.
      run: an open run's folder.

    Returns:
      The parameters after the last step, on the host.

    Raises:
      InputError: batch and machine do not fit together, or the weights cannot be read.
      Interrupted: after SIGTERM or SIGINT, with a checkpoint of the step that was under way.
      NamedFailure: more losses or gradients that are not finite than may be skipped, or a full disk.
    """
    steps = total_steps(len(pairs), config)
    with closing(Checkpoints(run, config, keep_last=config.training.keep_last)) as checkpoints:
        if checkpoints.latest() != steps:
            loop = _Loop(config, pairs, targets, steps=steps, run=run, saved=checkpoints)
            with full_disk_is_named(checkpoints):
                loop.run()
    return checkpoint.restore_parameters(run, which="last")


def total_steps(pairs: int, config: CrossEncoderConfig) -> int:
    """Optimiser steps of a run: training.steps, or what training.epochs take, rounded up."""
    if config.training.steps:
        return config.training.steps
    per_epoch = steps_per_epoch(pairs, pairs_per_batch=config.pairs.pairs_per_batch)
    return max(1, int(np.ceil(config.training.epochs * per_epoch)))


def check_machine(config: CrossEncoderConfig) -> Mesh:
    """The mesh. Raises InputError when it, or the batch, does not fit the devices of this machine."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.pairs.pairs_per_batch, mesh, flag="--pairs-per-batch")
    return mesh


def make_pair_step(
    model: CrossEncoder, config: CrossEncoderConfig, *, steps: int, mesh: Mesh
) -> Callable[[TrainState, PairBatch], tuple[TrainState, PairMetrics]]:
    """The compiled step, whose first argument is donated; it is compiled once a width. Dropout follows (seed, step).

    Args:
      model: gives the structure; shapes for parameters suffice.
      config: optimiser, dropout and seed.
      steps: length of the run, for the learning rate.
      mesh: as of crops_jax.sharding.make_mesh; pairs are divided over its data axes.
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

    abstract = abstract_state(model, config, steps=steps, mesh=mesh)
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        pair_step,
        donate_argnums=0,
        in_shardings=(state_shardings, sharding.batch_sharding(mesh)),
        out_shardings=(state_shardings, sharding.replicated(mesh)),
    )


class _Loop:
    """One stretch of a run: from its newest checkpoint to the end, an interruption or a failure."""

    def __init__(
        self,
        config: CrossEncoderConfig,
        pairs: TokenizedPairs,
        targets: Float64[np.ndarray, "pairs"],
        *,
        steps: int,
        run: Path,
        saved: Checkpoints,
    ):
        self._config, self._pairs, self._targets, self._steps = config, pairs, targets, steps
        self._run, self._checkpoints, self._mesh = run, saved, check_machine(config)
        self._watch = Stopwatch()
        model = abstract_cross_encoder(config.encoder)
        self._step = make_pair_step(model, config, steps=steps, mesh=self._mesh)
        if (latest := saved.latest()) is None:
            parameters = initial_parameters(config.encoder, seed=config.training.seed, mesh=self._mesh)
            self._state = initial_state(parameters, config, steps=steps, mesh=self._mesh)
        else:
            like = abstract_state(model, config, steps=steps, mesh=self._mesh)
            self._state, _ = saved.restore(latest, like, self._mesh)
        self._first = self._logged_at = int(self._state.step)
        self._nonfinite = NonFiniteSteps(
            saved,
            skipped=self._first - int(updates_done(self._state.optimizer_state)),
            allowed=config.training.skip_nonfinite_steps,
            advice=f"a lower {_FLAG} may help, in a new run",
        )

    def run(self) -> None:
        config, steps = self._config, self._steps
        self._print_header()
        feed = pair_batches(
            self._pairs,
            self._targets,
            pairs_per_batch=config.pairs.pairs_per_batch,
            seed=config.training.seed,
            start_step=self._first,
            num_steps=steps,
        )
        with ExitStack() as stack:
            stop = stack.enter_context(stop_signal())
            self._log = stack.enter_context(closing(RunLog(self._run, resumed_at=self._first)))
            self._log.goodput({"event": "start", "step": self._first, "steps": steps, **self._watch.read()})
            profile = stack.enter_context(closing(ProfiledSteps(self._run, *config.training.profile_steps)))
            bar = stack.enter_context(tqdm(total=steps, initial=self._first, unit="step", desc="training"))
            pending: tuple[int, PairMetrics] | None = None
            for step, batch in enumerate(feed, start=self._first + 1):
                with profile.of(step), self._watch.of("compute"):
                    placed = jax.device_put(batch, sharding.batch_sharding(self._mesh))
                    self._state, metrics = self._step(self._state, placed)
                profile.after(step, self._state)
                with self._watch.of("compute"):
                    # The step before is looked at while this one runs, so that the device never waits for us.
                    if pending:
                        self._check(*pending)
                pending = step, metrics
                # Read once: a signal that comes after this line is answered after the next step.
                stopping = stop.is_set()
                logs = step == steps or step % config.training.log_every_steps == 0
                saves = stopping or step == steps or step % config.training.checkpoint_every_steps == 0
                if logs or saves:
                    with self._watch.of("compute"):
                        last = self._check(*pending)
                    pending = None
                    self._after(step, last, logs=logs, saves=saves)
                    bar.set_postfix(loss=f"{float(last.loss):.4f}", refresh=False)
                bar.update()
                if stopping and step < steps:
                    self._checkpoints.wait()
                    raise Interrupted(
                        f"interrupted at step {step} of {steps}; a checkpoint is saved; call the same command again "
                        "to go on"
                    )
            self._checkpoints.wait()

    def _check(self, step: int, metrics: PairMetrics) -> PairMetrics:
        """The metrics of a step on the host. Raises NamedFailure if it had to be skipped and may not be."""
        metrics = jax.device_get(metrics)
        self._nonfinite.check(step, metrics.loss, metrics.grad_norm)
        return metrics

    def _after(self, step: int, metrics: PairMetrics, *, logs: bool, saves: bool) -> None:
        if logs:
            spent = self._watch.read()
            pairs = (step - self._logged_at) * self._config.pairs.pairs_per_batch
            line = {name: finite_number(value) for name, value in metrics._asdict().items()}
            # What logits are divided by while training; the temperature is fitted after it.
            line = {"step": step, "temperature": 1.0, **line, "skipped_steps": self._nonfinite.skipped}
            self._log.metrics({**line, "examples_per_second": round(pairs / spent["seconds"], 3)})
            self._log.goodput({"step": step, **spent})
            self._logged_at = step
        if saves:
            with self._watch.of("checkpoint"):
                check_parameters(step, self._state.parameters, self._checkpoints, flag=_FLAG)
                self._checkpoints.save(self._state, Progress())

    def _print_header(self) -> None:
        devices = self._mesh.devices.ravel()
        shape = " x ".join(f"{name} {size}" for name, size in self._mesh.shape.items())
        print(
            f"devices: {devices.size} x {devices[0].device_kind}, mesh: {shape}, pairs: {len(self._pairs)}, steps: "
            f"{self._first} to {self._steps} of {self._config.pairs.pairs_per_batch} pairs",
            file=sys.stderr,
            flush=True,
        )
