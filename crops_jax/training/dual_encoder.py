"""Training of a dual encoder: the task that the loop (crops_jax.training.loop) runs for it.

Each step is a function of (configuration, records, step): its batch, its dropout, the values that it logs, the
evaluation, and the choice of the best checkpoint.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from crops_jax import pretrained, records
from crops_jax.config import Config
from crops_jax.devices import processes, sharding
from crops_jax.errors import InputError
from crops_jax.input_pipeline import Batch, batches, describe_batch
from crops_jax.losses.level_statistics import LEVEL_SUMS, as_fields, as_sums
from crops_jax.models.dual_encoder import abstract_dual_encoder, random_dual_encoder
from crops_jax.models.parameters import place_parameters, random_parameters
from crops_jax.models.poly_encoder import QueryCodes
from crops_jax.program.progress import say
from crops_jax.runs import checksums
from crops_jax.runs.checkpoints import Checkpoints, Progress, read_progress
from crops_jax.runs.initial_run import read_weights
from crops_jax.runs.log import Stopwatch, finite_number
from crops_jax.training.dev_recall import CUTOFF, DevRecall
from crops_jax.training.flops import step_flops, utilization
from crops_jax.training.frozen_documents import FrozenDocuments, QueryBatch, make_query_step
from crops_jax.training.loop import Evaluation, TrainingLoop
from crops_jax.training.refreshed_negatives import RefreshedNegatives
from crops_jax.training.state import TrainState
from crops_jax.training.step import StepMetrics, attention_name, device_batch, implementation_name, make_train_step

DEV_METRIC = f"dev_recall_at_{CUTOFF}"
_BATCH_FLAG = "--data.queries-per-batch"
_SKIP_FLAG = "--training.skip-nonfinite-steps"


def train(
    config: Config,
    *,
    records_path: Path | str,
    run: Path,
    initial_run: Path | str | None = None,
    documents: FrozenDocuments | None = None,
) -> dict[str, Any]:
    """Trains until the last step or an early stop. It starts from the newest checkpoint of `run` if the run has one.

    Args:
      config: a resolved configuration (crops_jax.pretrained.resolve_config).
      records_path: the records of data.write_records. Split dev, when present, decides which checkpoint is the best.
      run: the folder of an open run, see crops_jax.runs.folder.
      initial_run: the run whose best weights step 0 has, with the temperature of `config`. None: the weights are those
        of `initial_parameters`.
      documents: the vectors of frozen documents. If they are given, the query tower alone is trained, on the first
        documents of each query among them (crops_jax.training.frozen_documents).

    Returns:
      A dictionary with steps (the number that the run made), best_step and, when the run was evaluated, DEV_METRIC of
      that step. It has stopped_early, True, when training.early_stopping_evaluations ended the run.

    Raises:
      InputError: when configuration, records and machine do not fit together.
      Interrupted: after SIGTERM or SIGINT; a checkpoint of the step that was running is saved.
      NamedFailure: when more losses or gradients are not finite than the run can skip, or the disk is full.
    """
    source = records.RecordSource(records_path, split="train")
    steps = total_steps(source, config)
    with Checkpoints(run, config, keep_last=config.training.keep_last) as checkpoints:
        if (ended := _ended(checkpoints, config, steps)) is not None:
            if processes.current().is_first:
                say(f"{run} is finished: {ended[0]} steps")
            return _outcome(*ended, steps=steps)
        mesh = sharding.make_mesh(config.mesh)
        sharding.check_batch(config.data.queries_per_batch, mesh, flag=_BATCH_FLAG)
        watch = Stopwatch()
        start = None if initial_run is None else _Start(Path(initial_run), run)
        task = _DualEncoderTask(
            config, source, steps=steps, records_path=records_path, mesh=mesh, start=start, documents=documents
        )
        last_step, progress = TrainingLoop(task, run=run, checkpoints=checkpoints, watch=watch).run()
        return _outcome(last_step, progress, steps=steps)


def total_steps(source: records.RecordSource, config: Config) -> int:
    """Returns the number of optimiser steps of a run: training.steps, or the steps of training.epochs, rounded up."""
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

    JAX_COMPILATION_CACHE_DIR names another folder, which several runs can share.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(run.absolute() / "compilation_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


class _Start(NamedTuple):
    """The run whose weights are step 0, and the run that starts from them."""

    initial_run: Path
    run: Path


class _DualEncoderTask:
    """The crops_jax.training.loop.Task of a dual encoder."""

    unit = "queries"
    learning_rate_flag = "--optimizer.learning-rate"
    nonfinite_advice = (
        f"a lower {learning_rate_flag} may help, in a new run, or a larger {_SKIP_FLAG}, which leaves such steps out"
    )

    def __init__(
        self,
        config: Config,
        source: records.RecordSource,
        *,
        steps: int,
        records_path: Path | str,
        mesh: Mesh,
        start: _Start | None,
        documents: FrozenDocuments | None,
    ):
        self.config, self._source, self.steps, self.mesh, self._start = config, source, steps, mesh, start
        self.model = abstract_dual_encoder(config)
        self._documents = documents
        make_step: Any = make_train_step if documents is None else make_query_step
        self.step = make_step(self.model, config, steps=steps, mesh=mesh)
        self.evaluation = self._evaluation(records_path)
        self.refresh = self._refresh(records_path)
        self.examples_per_step = config.data.queries_per_batch
        self._implementation, self._attention = implementation_name(config), attention_name(config, mesh=mesh)
        distilled = config.loss.distillation
        added = "" if distilled == "none" else f" + {config.loss.distillation_weight:g} x {distilled}"
        self.details = f"loss: {config.loss.name} ({self._implementation}){added}"

    def describe_batch(self, step: int) -> str:
        return describe_batch(self._source, self.config, step - 1)

    def initial_parameters(self) -> dict:
        if self._start is not None:
            return _parameters_of(self._start, self.config, mesh=self.mesh)
        return initial_parameters(self.config, seed=self.config.training.seed, mesh=self.mesh)

    def batches(self, first_step: int, state: TrainState) -> Iterator[Batch | QueryBatch]:
        refresh = self.refresh
        feed = batches(
            self._source,
            self.config,
            start_step=first_step,
            num_steps=self.steps,
            end_step=None if refresh is None else refresh.end_of_part(first_step),
            documents=None if refresh is None else refresh.documents,
            drawn=None if refresh is None else refresh.drawn(first_step, state),
            groups=sharding.num_groups(self.mesh),
            own_groups=sharding.own_groups(self.mesh),
        )
        if self._documents is None:
            return (device_batch(batch, self.mesh) for batch in feed)
        return self._query_batches(feed, self._documents)

    def _query_batches(self, feed: Iterator[Batch], documents: FrozenDocuments) -> Iterator[QueryBatch]:
        """Yields batches with the positives of their queries and the vectors of all documents, placed once."""
        vectors = sharding.spread(documents.vectors, sharding.replicated(self.mesh))
        for batch in feed:
            rows = device_batch(documents.positive_rows(batch), self.mesh)
            yield QueryBatch(device_batch(batch, self.mesh), rows, vectors)

    def sums(self, metrics: StepMetrics, *, skipped: bool) -> dict[str, int | float]:
        counters: dict[str, int | float] = {name: int(value) for name, value in metrics.counters.items()}
        return counters if skipped else counters | as_sums(metrics.levels)

    def fields(self, metrics: StepMetrics, sums: Mapping[str, int | float], *, skipped: int) -> dict[str, Any]:
        counters = {name: value for name, value in sums.items() if name not in LEVEL_SUMS}
        counters[checksums.SAMPLES_FIELD] %= checksums.CHECKSUM_MODULUS
        return {
            "loss": finite_number(metrics.loss),
            **({} if metrics.distillation is None else {"distillation_loss": finite_number(metrics.distillation)}),
            "temperature": float(metrics.temperature),
            "learning_rate": float(metrics.learning_rate),
            "grad_norm": finite_number(metrics.grad_norm),
            "loss_name": self.config.loss.name,
            "loss_implementation": self._implementation,
            "attention_implementation": self._attention,
            "skipped_steps": skipped,
            **dict(sorted((counters | as_fields(sums)).items())),
            "padding_share": round(1 - counters["tokens"] / counters["token_places"], 4),
        }

    def speeds(self, sums: Mapping[str, int | float], *, steps: int, seconds: float) -> dict[str, float]:
        """Returns the tokens per second and, where the peak of the devices is known, the model FLOPs' share of it."""
        speeds = {"tokens_per_second": round(sums["tokens"] / seconds, 1)}
        devices = self.mesh.devices
        flops = steps * step_flops(self.config, **{name: sums[name] / steps for name in ("tokens", "causal_pairs")})
        share = utilization(flops, seconds, devices=devices.size, device_kind=devices.flat[0].device_kind)
        return speeds if share is None else speeds | {"model_flops_utilization": round(share, 4)}

    def _evaluation(self, records_path: Path | str) -> Evaluation | None:
        if self.config.training.evaluate_every_steps == 0 or "dev" not in records.splits(records_path):
            return None
        of_training = records.RecordSource(records_path) if self.config.training.dev_documents else None
        of_dev = records.RecordSource(records_path, split="dev")
        dev = DevRecall(of_dev, self.model, self.config, mesh=self.mesh, training_source=of_training)
        return Evaluation(DEV_METRIC, dev) if len(dev) else None

    def _refresh(self, records_path: Path | str) -> RefreshedNegatives | None:
        if not self.config.negatives.refresh_every_steps:
            return None
        documents = records.RecordSource(records_path, split=records.ALL_DOCUMENTS)
        return RefreshedNegatives(self._source, documents, self.model, self.config, steps=self.steps, mesh=self.mesh)


def _ended(checkpoints: Checkpoints, config: Config, steps: int) -> tuple[int, Progress] | None:
    """Returns the step and the progress of the checkpoint that ends a run; None for a run that goes on.

    Args:
      checkpoints: the checkpoints of the run.
      config: its configuration.
      steps: the number of steps of the run, if it does not stop early.
    """
    latest, patience = checkpoints.latest(), config.training.early_stopping_evaluations
    if latest is None or not (patience or latest == steps):
        return None
    progress = read_progress(checkpoints.path / str(latest))
    return (latest, progress) if latest == steps or progress.ends_early(patience) else None


def _outcome(last_step: int, progress: Progress, *, steps: int) -> dict[str, Any]:
    """Returns the result of `train`. Without an evaluation the last step is the best one."""
    outcome: dict[str, Any] = {"steps": last_step, "best_step": last_step}
    if progress.best is not None:
        outcome |= {"best_step": progress.best.step, DEV_METRIC: progress.best.metric}
    return outcome | ({"stopped_early": True} if last_step < steps else {})


def initial_parameters(config: Config, *, seed: int, mesh: Mesh) -> dict[str, Any]:
    """Returns the parameters that training starts from, each made or read on its devices of `mesh`.

    They are random, drawn with `seed`, or, when config.encoder.weights is set, the weights of that folder, from which
    both towers start. Sizes and pooling are then those of the folder (`pretrained.resolve_config`), and the codes of a
    Poly-encoder are random.

    Returns a nested dictionary like that of nnx.to_pure_dict(nnx.state(model, nnx.Param)). Raises InputError when the
    folder cannot be used.
    """
    if not config.encoder.weights:
        return random_parameters(lambda: random_dual_encoder(config, seed=seed), mesh)
    parameters = pretrained.read_parameters(config.replace(encoder={"query_codes": 0}), mesh=mesh)
    if config.encoder.query_codes:
        codes = random_parameters(lambda: QueryCodes(config.encoder, rngs=nnx.Rngs(params=seed)), mesh)
        parameters = {**parameters, "query_codes": codes}
    return parameters


def _parameters_of(start: _Start, config: Config, *, mesh: Mesh) -> dict[str, Any]:
    """Returns what another run starts from, on `mesh`. Raises InputError if the weights have changed."""
    weights = read_weights(start.initial_run, run=start.run, config=config)
    try:
        return place_parameters(abstract_dual_encoder(config), weights, mesh)
    except ValueError as error:
        raise InputError(
            f"--initial-run {start.initial_run}: its checkpoint does not fit its config.json ({error}); was one of "
            "them replaced?"
        ) from error
