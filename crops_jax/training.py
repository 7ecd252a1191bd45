"""The training loop: a run that is killed at any moment and started again ends as if it had not been.

All that a step does follows from (configuration, records, step): batches, dropout, what is logged and evaluated, and
which checkpoint is the best. What lies between two lines of metrics.jsonl is kept in the checkpoint.
"""

import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from crops_jax import checkpoint, records, sharding
from crops_jax.checkpoint import Best, Checkpoints, Progress
from crops_jax.config import Config
from crops_jax.dev_recall import CUTOFF, DevRecall
from crops_jax.errors import InputError, Interrupted
from crops_jax.input_pipeline import batches
from crops_jax.models.dual_encoder import create_dual_encoder
from crops_jax.run_guards import check_finite, check_parameters, full_disk_is_named, stop_signal
from crops_jax.run_log import RunLog, Stopwatch
from crops_jax.train_step import (
    StepMetrics,
    device_batch,
    implementation_name,
    initial_state,
    make_train_step,
)

DEV_METRIC = f"dev_recall_at_{CUTOFF}"
_FLAG = "--optimizer.learning-rate"


class _Cadence(NamedTuple):
    """What happens after a step, a function of its number."""

    logs: bool
    evaluates: bool
    saves: bool


def train(config: Config, *, records_path: Path | str, run: Path) -> dict[str, Any]:
    """Trains until the last step, from the newest checkpoint of `run` on if there is one.

    Args:
      config: resolved (crops_jax.pretrained.resolve_config).
      records_path: records of data.write_records; split train, and split dev for keep-best.
      run: an open run, see crops_jax.run_folder.

    Returns:
      steps; loss, the last logged one; best_step, and DEV_METRIC where there is a dev split.

    Raises:
      InputError: configuration, records and machine do not fit together.
      Interrupted: after SIGTERM or SIGINT, with a checkpoint of the step that was under way.
      NamedFailure: a loss or gradient that is not finite, or a full disk.
    """
    source = records.RecordSource(records_path, split="train")
    steps = total_steps(source, config)
    checkpoints = Checkpoints(run, config, keep_last=config.training.keep_last)
    with closing(checkpoints):
        if checkpoints.latest() == steps:
            print(f"{run} is finished: {steps} steps", file=sys.stderr)
            progress = checkpoint.read_progress(checkpoints.path / str(steps))
            return _outcome(steps, progress)
        mesh = sharding.make_mesh(config.mesh)
        _check_batch(config, mesh)
        loop = _Loop(config, source, steps=steps, records_path=records_path, run=run, mesh=mesh, saved=checkpoints)
        with full_disk_is_named(checkpoints):
            return _outcome(steps, loop.run())


def total_steps(source: records.RecordSource, config: Config) -> int:
    """Optimiser steps of a run: training.steps, or what training.epochs take, rounded up."""
    if config.training.steps:
        return config.training.steps
    return max(1, int(np.ceil(config.training.epochs * len(source) / config.data.queries_per_batch)))


def check_machine(config: Config) -> None:
    """Raises InputError when the mesh or the batch does not fit the devices of this machine."""
    _check_batch(config, sharding.make_mesh(config.mesh))


def enable_compilation_cache(run: Path) -> None:
    """Keeps compiled programs in RUN/compilation_cache, so that a resumed run starts at once.

    JAX_COMPILATION_CACHE_DIR names another place, which runs may share.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(run.absolute() / "compilation_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


class _Loop:
    """One stretch of a run: from its newest checkpoint to the end, an interruption or a failure."""

    def __init__(
        self,
        config: Config,
        source: records.RecordSource,
        *,
        steps: int,
        records_path: Path | str,
        run: Path,
        mesh: Mesh,
        saved: Checkpoints,
    ):
        self._config, self._source, self._steps, self._run, self._mesh = config, source, steps, run, mesh
        self._checkpoints = saved
        self._watch = Stopwatch()
        model = create_dual_encoder(config, seed=config.training.seed)
        self._train_step = make_train_step(model, config, steps=steps, mesh=mesh)
        self._state = initial_state(model, config, steps=steps, mesh=mesh)
        self._progress = Progress()
        self._dev = self._dev_recall(records_path, model)
        latest = saved.latest()
        if latest is not None:
            self._state, self._progress = saved.restore(latest, self._state, mesh)
        self._first = int(self._state.step)
        self._counters = dict(self._progress.accumulated)
        self._logged_at = self._first
        self._implementation = implementation_name(config)
        self._compiled: set[tuple] = set()

    def run(self) -> Progress:
        config, steps = self._config, self._steps
        self._print_header()
        with ExitStack() as stack:
            stop = stack.enter_context(stop_signal())
            self._log = stack.enter_context(closing(RunLog(self._run, resumed_at=self._first)))
            self._log.goodput({"event": "start", "step": self._first, "steps": steps, **self._watch.read()})
            bar = stack.enter_context(tqdm(total=steps, initial=self._first, unit="step", desc="training"))
            feed = batches(
                self._source, config, start_step=self._first, num_steps=steps, groups=self._mesh.shape["data"]
            )
            pending: tuple[int, StepMetrics] | None = None
            for step in range(self._first + 1, steps + 1):
                with self._watch.of("input_wait"):
                    batch = device_batch(next(feed), self._mesh)
                # The first call with a number of rows compiles before it computes.
                shapes = tuple(texts.tokens.shape for texts in batch.texts)
                with self._watch.of("compute" if shapes in self._compiled else "compilation"):
                    self._state, metrics = self._train_step(self._state, batch)
                self._compiled.add(shapes)
                with self._watch.of("compute"):
                    # The step before is looked at while this one runs, so that the device never waits for us.
                    if pending:
                        self._check(*pending)
                pending = (step, metrics)
                cadence = self._cadence(step)
                # Read once: a signal that comes after this line is answered after the next step.
                stopping = stop.is_set()
                if any(cadence) or stopping:
                    with self._watch.of("compute"):
                        last = self._check(*pending)
                    pending = None
                    self._after(step, last, cadence, stopping=stopping)
                    bar.set_postfix(loss=f"{float(last.loss):.4f}", refresh=False)
                bar.update()
                if stopping and step < steps:
                    self._checkpoints.wait()
                    raise Interrupted(
                        f"interrupted at step {step} of {steps}; a checkpoint is saved; call the same command again "
                        "to go on"
                    )
            self._checkpoints.wait()
        return self._progress

    def _cadence(self, step: int) -> _Cadence:
        training, last = self._config.training, step == self._steps
        evaluates = self._dev is not None and (last or step % training.evaluate_every_steps == 0)
        return _Cadence(
            logs=last or evaluates or step % training.log_every_steps == 0,
            evaluates=evaluates,
            saves=last or step % training.checkpoint_every_steps == 0,
        )

    def _check(self, step: int, metrics: StepMetrics) -> StepMetrics:
        """The metrics of a step on the host, its counters added up. Raises NamedFailure when they are not finite."""
        metrics = jax.device_get(metrics)
        check_finite(step, metrics.loss, metrics.grad_norm, self._checkpoints, flag=_FLAG)
        for name, value in metrics.counters.items():
            self._counters[name] = self._counters.get(name, 0) + int(value)
        return metrics

    def _after(self, step: int, metrics: StepMetrics, cadence: _Cadence, *, stopping: bool) -> None:
        recall = None
        if cadence.evaluates and self._dev is not None:
            with self._watch.of("evaluation"):
                recall = self._dev(self._state.parameters)
        best = self._progress.best
        improved = False
        if recall is not None and (best is None or recall > best.metric):
            best, improved = Best(step, recall), True
        if cadence.logs:
            self._write_line(step, metrics, recall)
        self._progress = Progress(best, dict(self._counters))
        if cadence.saves or improved or stopping:
            with self._watch.of("checkpoint"):
                check_parameters(step, self._state.parameters, self._checkpoints, flag=_FLAG)
                self._checkpoints.save(self._state, self._progress)

    def _write_line(self, step: int, metrics: StepMetrics, recall: float | None) -> None:
        spent = self._watch.read()
        examples = (step - self._logged_at) * self._config.data.queries_per_batch
        line: dict[str, Any] = {
            "step": step,
            "loss": float(metrics.loss),
            "temperature": float(metrics.temperature),
            "learning_rate": float(metrics.learning_rate),
            "grad_norm": float(metrics.grad_norm),
            "loss_name": self._config.loss.name,
            "loss_implementation": self._implementation,
            **dict(sorted(self._counters.items())),
            "padding_share": round(1 - self._counters["tokens"] / self._counters["token_places"], 4),
        }
        if recall is not None:
            line[DEV_METRIC] = recall
        line["examples_per_second"] = round(examples / spent["seconds"], 3)
        line["tokens_per_second"] = round(self._counters["tokens"] / spent["seconds"], 1)
        self._log.metrics(line)
        self._log.goodput({"step": step, **spent})
        self._logged_at, self._counters = step, {}

    def _dev_recall(self, records_path: Path | str, model: Any) -> DevRecall | None:
        if self._config.training.evaluate_every_steps == 0 or "dev" not in records.splits(records_path):
            return None
        dev = DevRecall(records.RecordSource(records_path, split="dev"), model, self._config, mesh=self._mesh)
        return dev if len(dev) else None

    def _print_header(self) -> None:
        devices = self._mesh.devices.ravel()
        shape = " x ".join(f"{name} {size}" for name, size in self._mesh.shape.items())
        print(
            f"devices: {devices.size} x {devices[0].device_kind}, mesh: {shape}, loss: {self._config.loss.name} "
            f"({self._implementation}), steps: {self._first} to {self._steps} of "
            f"{self._config.data.queries_per_batch} queries",
            file=sys.stderr,
            flush=True,
        )


def _check_batch(config: Config, mesh: Mesh) -> None:
    if config.data.queries_per_batch % mesh.shape["data"]:
        raise InputError(
            f"data.queries_per_batch = {config.data.queries_per_batch} is not a multiple of the mesh's data axis, "
            f"{mesh.shape['data']}; choose another --data.queries-per-batch or --mesh.data"
        )


def _outcome(steps: int, progress: Progress) -> dict[str, Any]:
    if progress.best is None:
        return {"steps": steps, "best_step": steps}
    return {"steps": steps, "best_step": progress.best.step, DEV_METRIC: progress.best.metric}
