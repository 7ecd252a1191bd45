"""The training loop: a run that is killed at any moment and started again ends as if it had not been.

All that a step does follows from (configuration, records, step): batches, dropout, what is logged and evaluated, and
which checkpoint is the best. What lies between two lines of metrics.jsonl is kept in the checkpoint.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from crops_jax import batch_checksum, checkpoint, processes, records, sharding
from crops_jax.batch_reader import Batch
from crops_jax.checkpoint import Best, Checkpoints, Progress
from crops_jax.config import Config
from crops_jax.dev_recall import CUTOFF, DevRecall
from crops_jax.errors import Interrupted
from crops_jax.input_pipeline import batches, describe_batch
from crops_jax.losses.level_statistics import LEVEL_SUMS, as_fields, as_sums
from crops_jax.model_flops import step_flops, utilization
from crops_jax.models.dual_encoder import abstract_dual_encoder, initial_parameters
from crops_jax.optimizer import updates_done
from crops_jax.profiling import ProfiledSteps
from crops_jax.run_guards import NonFiniteSteps, StopVote, check_parameters, full_disk_is_named, stop_signal
from crops_jax.run_log import RunLog, Stopwatch, finite_number
from crops_jax.train_step import (
    StepMetrics,
    abstract_state,
    attention_name,
    device_batch,
    implementation_name,
    initial_state,
    make_train_step,
)

DEV_METRIC = f"dev_recall_at_{CUTOFF}"
_FLAG = "--optimizer.learning-rate"
_BATCH_FLAG = "--data.queries-per-batch"
_SKIP_FLAG = "--training.skip-nonfinite-steps"


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
      NamedFailure: more losses or gradients that are not finite than may be skipped, or a full disk.
    """
    source = records.RecordSource(records_path, split="train")
    steps = total_steps(source, config)
    with Checkpoints(run, config, keep_last=config.training.keep_last) as checkpoints:
        if checkpoints.latest() == steps:
            if processes.current().is_first:
                print(f"{run} is finished: {steps} steps", file=sys.stderr)
            progress = checkpoint.read_progress(checkpoints.path / str(steps))
            return _outcome(steps, progress)
        mesh = sharding.make_mesh(config.mesh)
        sharding.check_batch(config.data.queries_per_batch, mesh, flag=_BATCH_FLAG)
        loop = _Loop(config, source, steps=steps, records_path=records_path, run=run, mesh=mesh, saved=checkpoints)
        with full_disk_is_named(checkpoints):
            return _outcome(steps, loop.run())


def total_steps(source: records.RecordSource, config: Config) -> int:
    """Optimiser steps of a run: training.steps, or what training.epochs take, rounded up."""
    if config.training.steps:
        return config.training.steps
    return max(1, int(np.ceil(config.training.epochs * len(source) / config.data.queries_per_batch)))


def check_machine(config: Config) -> None:
    """Raises InputError when mesh, batch or a named implementation does not fit the devices of this machine."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.data.queries_per_batch, mesh, flag=_BATCH_FLAG)
    sharding.check_processes(mesh)
    implementation_name(config)
    attention_name(config, mesh=mesh)


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
        model = abstract_dual_encoder(config)
        self._train_step = make_train_step(model, config, steps=steps, mesh=mesh)
        self._progress = Progress()
        self._dev = self._dev_recall(records_path, model)
        latest = saved.latest()
        if latest is None:
            parameters = initial_parameters(config, seed=config.training.seed, mesh=mesh)
            self._state = initial_state(parameters, config, steps=steps, mesh=mesh)
        else:
            like = abstract_state(model, config, steps=steps, mesh=mesh)
            self._state, self._progress = saved.restore(latest, like, mesh)
        self._first = int(self._state.step)
        self._sums: dict[str, int | float] = dict(self._progress.accumulated)
        self._nonfinite = NonFiniteSteps(
            saved,
            skipped=self._first - int(updates_done(self._state.optimizer_state)),
            allowed=config.training.skip_nonfinite_steps,
            advice=f"a lower {_FLAG} may help, in a new run, or a greater {_SKIP_FLAG}, which leaves such steps out",
            batch=lambda step: describe_batch(source, config, step - 1),
        )
        self._logged_at = self._first
        # Of what is counted for the next line, the part that an earlier process did takes no part in speeds.
        self._earlier = dict(self._progress.accumulated)
        self._implementation, self._attention = implementation_name(config), attention_name(config, mesh=mesh)
        self._compiled: set[tuple] = set()

    def run(self) -> Progress:
        config, steps = self._config, self._steps
        self._print_header()
        with ExitStack() as stack:
            stop = StopVote(stack.enter_context(stop_signal()), self._mesh)
            self._log = stack.enter_context(closing(RunLog(self._run, resumed_at=self._first)))
            self._log.goodput({"event": "start", "step": self._first, "steps": steps, **self._watch.read()})
            profile = stack.enter_context(closing(ProfiledSteps(self._run, *config.training.profile_steps)))
            bar = stack.enter_context(self._progress_bar())
            feed = batches(
                self._source,
                config,
                start_step=self._first,
                num_steps=steps,
                groups=sharding.num_groups(self._mesh),
                own_groups=sharding.own_groups(self._mesh),
            )
            pending: tuple[int, StepMetrics] | None = None
            for step in range(self._first + 1, steps + 1):
                with profile.of(step):
                    metrics = self._dispatch(feed, pending[1] if pending else None)
                profile.after(step, self._state)
                with self._watch.of("compute"):
                    # The step before is looked at while this one runs, so that the device never waits for us.
                    if pending:
                        self._check(*pending)
                    stopping = stop.is_due()
                pending = (step, metrics)
                cadence = self._cadence(step)
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

    def _dispatch(self, feed: Iterator[Batch], before: StepMetrics | None) -> StepMetrics:
        """Starts the next step, whose batch is the next of `feed`. before: metrics of a step that may still run."""
        with self._watch.of("input_wait", computing=lambda: _is_under_way(before)):
            batch = device_batch(next(feed), self._mesh)
        # On a CPU a step takes its memory when it is dispatched, and two would take twice as much.
        if before is not None and self._mesh.devices.flat[0].platform == "cpu":
            with self._watch.of("compute"):
                jax.block_until_ready(before)
        # The first call with a number of rows compiles before it computes.
        shapes = tuple(texts.tokens.shape for texts in batch.texts)
        with self._watch.of("compute" if shapes in self._compiled else "compilation"):
            self._state, metrics = self._train_step(self._state, batch)
        self._compiled.add(shapes)
        return metrics

    def _cadence(self, step: int) -> _Cadence:
        training, last = self._config.training, step == self._steps
        evaluates = self._dev is not None and (last or step % training.evaluate_every_steps == 0)
        return _Cadence(
            logs=last or evaluates or step % training.log_every_steps == 0,
            evaluates=evaluates,
            saves=last or step % training.checkpoint_every_steps == 0,
        )

    def _check(self, step: int, metrics: StepMetrics) -> StepMetrics:
        """The metrics of a step on the host, added up. Raises NamedFailure if it had to be skipped and may not be."""
        metrics = jax.device_get(metrics)
        skipped = self._nonfinite.check(step, metrics.loss, metrics.grad_norm)
        found = {name: int(value) for name, value in metrics.counters.items()}
        if not skipped:
            found |= as_sums(metrics.levels)
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0) + value
        return metrics

    def _after(self, step: int, metrics: StepMetrics, cadence: _Cadence, *, stopping: bool) -> None:
        recall = None
        if cadence.evaluates and self._dev is not None:
            with self._watch.of("evaluation"):
                recall = self._dev(self._state.final_parameters)
        best = self._progress.best
        improved = False
        if recall is not None and (best is None or recall > best.metric):
            best, improved = Best(step, recall), True
        if cadence.logs:
            self._write_line(step, metrics, recall)
        self._progress = Progress(best, dict(self._sums))
        if cadence.saves or improved or stopping:
            with self._watch.of("checkpoint"):
                check_parameters(step, self._state.parameters, self._checkpoints, flag=_FLAG)
                self._checkpoints.save(self._state, self._progress)

    def _write_line(self, step: int, metrics: StepMetrics, recall: float | None) -> None:
        spent = self._watch.read()
        examples = (step - self._logged_at) * self._config.data.queries_per_batch
        counters = {name: value for name, value in self._sums.items() if name not in LEVEL_SUMS}
        counters[batch_checksum.FIELD] %= batch_checksum.MODULUS
        line: dict[str, Any] = {
            "step": step,
            "loss": finite_number(metrics.loss),
            "temperature": float(metrics.temperature),
            "learning_rate": float(metrics.learning_rate),
            "grad_norm": finite_number(metrics.grad_norm),
            "loss_name": self._config.loss.name,
            "loss_implementation": self._implementation,
            "attention_implementation": self._attention,
            "skipped_steps": self._nonfinite.skipped,
            **dict(sorted((counters | as_fields(self._sums)).items())),
            "padding_share": round(1 - counters["tokens"] / counters["token_places"], 4),
        }
        if recall is not None:
            line[DEV_METRIC] = recall
        line["examples_per_second"] = round(examples / spent["seconds"], 3)
        done = {name: counters[name] - self._earlier.get(name, 0) for name in ("tokens", "causal_pairs")}
        line["tokens_per_second"] = round(done["tokens"] / spent["seconds"], 1)
        if (share := self._utilization(done, steps=step - self._logged_at, seconds=spent["seconds"])) is not None:
            line["model_flops_utilization"] = round(share, 4)
        self._log.metrics(line)
        self._log.goodput({"step": step, **spent})
        self._logged_at, self._sums, self._earlier = step, {}, {}

    def _utilization(self, done: dict[str, float], *, steps: int, seconds: float) -> float | None:
        """Model FLOPs of `steps` steps as a share of the devices' peak; None where that is unknown."""
        each = {name: count / steps for name, count in done.items()}
        devices = self._mesh.devices
        flops = steps * step_flops(self._config, **each)
        return utilization(flops, seconds, devices=devices.size, device_kind=devices.flat[0].device_kind)

    def _dev_recall(self, records_path: Path | str, model: Any) -> DevRecall | None:
        if self._config.training.evaluate_every_steps == 0 or "dev" not in records.splits(records_path):
            return None
        dev = DevRecall(records.RecordSource(records_path, split="dev"), model, self._config, mesh=self._mesh)
        return dev if len(dev) else None

    def _progress_bar(self) -> tqdm:
        silent = not processes.current().is_first
        return tqdm(total=self._steps, initial=self._first, unit="step", desc="training", disable=silent)

    def _print_header(self) -> None:
        if not processes.current().is_first:
            return
        devices = self._mesh.devices.ravel()
        shape = " x ".join(f"{name} {size}" for name, size in self._mesh.shape.items())
        print(
            f"devices: {devices.size} x {devices[0].device_kind}, mesh: {shape}, loss: {self._config.loss.name} "
            f"({self._implementation}), steps: {self._first} to {self._steps} of "
            f"{self._config.data.queries_per_batch} queries",
            file=sys.stderr,
            flush=True,
        )


def _is_under_way(metrics: Any) -> bool:
    """Whether the step of these metrics, or None, is still computed."""
    return metrics is not None and not metrics.loss.is_ready()


def _outcome(steps: int, progress: Progress) -> dict[str, Any]:
    if progress.best is None:
        return {"steps": steps, "best_step": steps}
    return {"steps": steps, "best_step": progress.best.step, DEV_METRIC: progress.best.metric}
