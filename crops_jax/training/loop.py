"""The loop of a training run. A run that is stopped at any moment and started again ends with the same parameters.

A Task defines the model and the data. A checkpoint also keeps the sums since the last line of metrics.jsonl.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import jax
from flax import nnx
from jax.sharding import Mesh

from crops_jax.config import Config, CrossEncoderConfig
from crops_jax.devices import processes
from crops_jax.errors import InputError, Interrupted
from crops_jax.program.progress import ProgressLine, say
from crops_jax.runs.checkpoints import Best, Checkpoints, Progress
from crops_jax.runs.log import RunLog, Stopwatch
from crops_jax.runs.profiling import ProfiledSteps
from crops_jax.runs.provenance import process_age, provenance
from crops_jax.runs.status import seconds_of
from crops_jax.runs.step_times import gathered_times
from crops_jax.runs.watchdog import Watchdog
from crops_jax.training.guards import NonFiniteSteps, RequestVote, check_parameters, full_disk_is_named, stop_signal
from crops_jax.training.optimizer import updates_done
from crops_jax.training.state import TrainState, abstract_state, initial_state, restore_state, save_state


class Evaluation(NamedTuple):
    """A metric of parameters, of which higher values are better, and the name of its field in metrics.jsonl."""

    field: str
    measure: Callable[[dict], float]


class Refresh(Protocol):
    """A part of the state that is made anew between steps, so that the batches after it depend on the parameters."""

    def is_due(self, step: int) -> bool:
        """Returns whether the state is refreshed after `step` steps, before the next one."""
        ...

    def __call__(
        self, state: TrainState, watch: Stopwatch, *, stops_now: Callable[[], bool]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the refreshed state and fields that describe it; None once `stops_now()` is true.

        The time is measured as the part "refresh".
        """
        ...

    def fields(self, step: int) -> dict[str, int]:
        """Returns the fields of the line of a step in metrics.jsonl."""
        ...


class Task(Protocol):
    """The model that is trained and its metrics, all of them functions of (configuration, data, step).

    Each task has its own types of batches and metrics: those that its `step` takes and returns. Metrics have the
    scalars loss and grad_norm.
    """

    steps: int
    """The number of steps of the whole run."""
    mesh: Mesh
    step: Callable[[TrainState, Any], tuple[TrainState, Any]]
    """The train step. It is compiled for each shape of a batch, and its first argument is donated."""
    evaluation: Evaluation | None
    """The metric that chooses the best checkpoint. None, as for evaluate_every_steps 0: the last one is the best."""
    examples_per_step: int
    unit: str
    """The name of the examples in messages."""
    details: str
    """The description of the training in the first printed line."""
    learning_rate_flag: str
    nonfinite_advice: str
    """The advice to the user when too many steps are not finite."""

    @property
    def refresh(self) -> Refresh | None:
        """The part of the state that the batches depend on; None: they are functions of the step alone."""
        ...

    @property
    def config(self) -> Config | CrossEncoderConfig: ...

    @property
    def model(self) -> nnx.Module:
        """The model, of which only the structure is used; shapes can stand for its parameters."""
        ...

    @property
    def describe_batch(self) -> Callable[[int], str] | None:
        """Describes the batch of a step, counted from 1, for messages. None: messages do not describe it."""
        ...

    def initial_parameters(self) -> dict:
        """Returns the parameters of step 0 on the mesh; the run donates their buffers."""
        ...

    def batches(self, first_step: int, state: TrainState) -> Iterator[Any]:
        """Returns the batches from a step, counted from 0, to the next refresh or the end, each over the mesh.

        state: the state before that step.
        """
        ...

    def sums(self, metrics: Any, *, skipped: bool) -> dict[str, int | float]:
        """Returns the values that are summed between two lines of metrics.jsonl. metrics: of one step, on the host."""
        ...

    def fields(self, metrics: Any, sums: Mapping[str, int | float], *, skipped: int) -> dict[str, Any]:
        """Returns the fields of a line that do not depend on the clock.

        Args:
          metrics: the metrics of the line's step, on the host.
          sums: the totals of `sums` over the steps since the previous line.
          skipped: the number of steps up to now whose loss or gradient was not finite.
        """
        ...

    def speeds(self, sums: Mapping[str, int | float], *, steps: int, seconds: float) -> dict[str, float]:
        """Returns the fields that depend on the clock, beside examples_per_second. sums: totals over these steps."""
        ...


class _Actions(NamedTuple):
    """The actions that follow a step. All but a save by the clock or by a signal are functions of its number."""

    logs: bool
    evaluates: bool
    saves: bool


class TrainingLoop:
    """One call of a run: from its newest checkpoint, if it has one, to the end, an interruption or a failure."""

    def __init__(self, task: Task, *, run: Path, checkpoints: Checkpoints, watch: Stopwatch):
        """
        Args:
          task: the model and the data.
          run: the folder of an open run.
          checkpoints: the checkpoints of that run.
          watch: a stopwatch that was started before the task was set up.

        Raises InputError when the newest checkpoint has another configuration or is damaged, or when the configuration
        has early stopping and the task no evaluation.
        """
        self._task, self._run, self._checkpoints, self._watch = task, run, checkpoints, watch
        self._training = task.config.training
        if (latest := checkpoints.latest()) is None:
            self._state = initial_state(task.initial_parameters(), task.config, steps=task.steps, mesh=task.mesh)
            self._progress = Progress()
        else:
            like = abstract_state(task.model, task.config, steps=task.steps, mesh=task.mesh)
            self._state, self._progress = restore_state(checkpoints, latest, like, task.mesh)
        self._first = self._logged_at = int(self._state.step)
        self._sums: dict[str, int | float] = dict(self._progress.accumulated)
        # The next line also counts the steps of an earlier process, but its speeds must not.
        self._earlier = dict(self._sums)
        if self._training.early_stopping_evaluations and task.evaluation is None:
            raise InputError(
                "training.early_stopping_evaluations has no dev metric to watch: there are no dev queries with a "
                "positive; write the records with a --dev-fraction above 0, or train without early stopping"
            )
        self._nonfinite = NonFiniteSteps(
            checkpoints,
            skipped=self._first - int(updates_done(self._state.optimizer_state)),
            allowed=self._training.skip_nonfinite_steps,
            advice=task.nonfinite_advice,
            batch=task.describe_batch,
        )
        self._compiled: set[tuple] = set()

    def run(self) -> tuple[int, Progress]:
        """Trains until the last step or an early stop.

        Returns:
          The last step, and the part of its checkpoint that is not arrays.

        Raises:
          Interrupted: after SIGTERM or SIGINT; a checkpoint of the step that was running is saved.
          NamedFailure: when more losses or gradients are not finite than the run can skip, or the disk is full.

        When nothing happens for training.hang_seconds, the process ends with status 4 (crops_jax.runs.watchdog).
        """
        steps = self._task.steps
        with ExitStack() as stack:
            stack.enter_context(full_disk_is_named(self._checkpoints))
            self._print_header()
            watchdog = Watchdog(self._run, self._watch, limit_seconds=self._training.hang_seconds).start()
            stack.callback(watchdog.close)
            self._vote = RequestVote(
                stack.enter_context(stop_signal()),
                self._task.mesh,
                save_seconds=self._training.checkpoint_every_seconds,
            )
            self._log = stack.enter_context(closing(RunLog(self._run, resumed_at=self._first)))
            silent = not processes.current().is_first
            begun = {"event": "start", "step": self._first, "steps": steps}
            # Only the first process writes the line, so the others do not call Git.
            made = {} if silent else provenance(self._task.mesh.devices.flat)
            self._log.goodput({**begun, **made, **self._watch.read()})
            profile = stack.enter_context(closing(ProfiledSteps(self._run, *self._training.profile_steps)))
            bar = stack.enter_context(
                ProgressLine(total=steps, initial=self._first, unit="steps", desc="training", delay=0, disable=silent)
            )
            feed = iter(())
            pending: tuple[int, Any] | None = None
            for step in range(self._first + 1, steps + 1):
                if self._refresh(step - 1) or step == self._first + 1:
                    feed = self._task.batches(step - 1, self._state)
                with profile.step(step):
                    metrics = self._dispatch(feed, pending[1] if pending else None)
                profile.after(step, self._state)
                with self._watch.measure("compute"):
                    # The host checks the previous step while this one runs, so that the device never waits for it.
                    if pending:
                        self._check(*pending)
                    # This is read once for each step: a later signal takes effect after the next step.
                    stopping, saving = self._vote.read()
                pending = (step, metrics)
                actions = self._actions_after(step, saving=saving or stopping)
                if any(actions):
                    with self._watch.measure("compute"):
                        last = self._check(*pending)
                    pending = None
                    self._finish_step(step, last, actions)
                    bar.show(loss=f"{float(last.loss):.4f}")
                bar.update()
                watchdog.step_done()
                if self._ends_early:
                    self._print_end(step)
                    break
                if stopping and step < steps:
                    self._stop(step)
            self._wait_for_checkpoints(int(self._state.step))
        return int(self._state.step), self._progress

    def _refresh(self, step: int) -> bool:
        """Refreshes the state after a step if that is due. Returns whether it was."""
        refresh = self._task.refresh
        if refresh is None or not refresh.is_due(step):
            return False
        refreshed = refresh(self._state, self._watch, stops_now=self._vote.stops_now)
        if refreshed is None:
            self._stop(step)
        self._state, fields = refreshed
        self._log.goodput({"event": "refresh", "step": step, **fields})
        return True

    def _dispatch(self, feed: Iterator[Any], before: Any) -> Any:
        """Starts the next step with the next batch of `feed`. before: metrics of a step that can still be running."""
        with self._watch.measure("input_wait", computing=lambda: before is not None and not before.loss.is_ready()):
            batch = next(feed)
        # On a CPU a step allocates its memory when it is dispatched, so two steps would need twice as much.
        if before is not None and self._task.mesh.devices.flat[0].platform == "cpu":
            with self._watch.measure("compute"):
                jax.block_until_ready(before)
        # The first call with a new shape compiles the step before it computes.
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        with self._watch.measure("compute" if shapes in self._compiled else "compilation"):
            self._state, metrics = self._task.step(self._state, batch)
        self._compiled.add(shapes)
        return metrics

    def _stop(self, step: int) -> NoReturn:
        """Ends the run after a step of which a checkpoint is saved, if any step was made."""
        self._wait_for_checkpoints(step)
        saved = "a checkpoint is saved; " if step else ""
        raise Interrupted(
            f"interrupted at step {step} of {self._task.steps}; {saved}call the same command again to go on"
        )

    def _wait_for_checkpoints(self, step: int) -> None:
        """Waits until checkpoints are on disk, and logs the time since the last line of goodput.jsonl."""
        with self._watch.measure("checkpoint"):
            self._checkpoints.wait()
        self._log.goodput({"event": "end", "step": step, **self._watch.read()})
        if processes.current().is_first:
            blocked = seconds_of(self._run, "checkpoint")
            say(f"checkpoints blocked the training for {blocked:.1f} s")

    def _actions_after(self, step: int, *, saving: bool) -> _Actions:
        """Returns the actions. saving: whether a checkpoint is requested, by the clock or by a signal to stop."""
        training, last = self._training, step == self._task.steps
        # A refresh takes long, so that an interrupted one should cost no steps before it.
        refreshed_next = self._task.refresh is not None and self._task.refresh.is_due(step)
        evaluates = self._task.evaluation is not None and (last or _is_multiple(step, training.evaluate_every_steps))
        return _Actions(
            logs=last or evaluates or step % training.log_every_steps == 0,
            evaluates=evaluates,
            saves=last or saving or refreshed_next or _is_multiple(step, training.checkpoint_every_steps),
        )

    def _check(self, step: int, metrics: Any) -> Any:
        """Adds up the metrics of a step and returns them on the host. Raises NamedFailure as NonFiniteSteps.check."""
        metrics = jax.device_get(metrics)
        if step == self._first + 1:
            self._note_first_step(step)
        skipped = self._nonfinite.check(step, metrics.loss, metrics.grad_norm)
        for name, value in self._task.sums(metrics, skipped=skipped).items():
            self._sums[name] = self._sums.get(name, 0) + value
        return metrics

    def _note_first_step(self, step: int) -> None:
        """Says how long the first step took since the start of the process, and how much of it was compilation."""
        age = process_age()
        if age is not None and processes.current().is_first:
            compilation = self._watch.spent("compilation")
            self._log.goodput({"event": "first_step", "step": step, "since_start_seconds": round(age, 3)})
            say(
                f"the first step ended {age:.1f} s after the start of the program; {compilation:.1f} s were compilation"
            )

    def _finish_step(self, step: int, metrics: Any, actions: _Actions) -> None:
        """Evaluates, logs and saves after a step, as its actions say."""
        evaluated, (best, _, since_best), improved = {}, self._progress, False
        if actions.evaluates and self._task.evaluation is not None:
            field, measure = self._task.evaluation
            with self._watch.measure("evaluation"):
                evaluated[field] = measure(self._state.final_parameters)
            if best is None or evaluated[field] > best.metric:
                best, since_best, improved = Best(step, evaluated[field]), 0, True
            else:
                since_best += 1
        if actions.logs:
            self._write_line(step, metrics, evaluated)
        self._progress = Progress(best, dict(self._sums), since_best)
        if actions.saves or improved or self._ends_early:
            with self._watch.measure("checkpoint"):
                flag = self._task.learning_rate_flag
                check_parameters(step, self._state.parameters, self._checkpoints, flag=flag)
                save_state(self._checkpoints, self._state, self._progress)
            self._vote.saved()

    @property
    def _ends_early(self) -> bool:
        return self._progress.ends_early(self._training.early_stopping_evaluations)

    def _write_line(self, step: int, metrics: Any, evaluated: dict[str, float]) -> None:
        spent, steps = self._watch.read(), step - self._logged_at
        done = {name: value - self._earlier.get(name, 0) for name, value in self._sums.items()}
        line = {
            "step": step,
            **self._task.fields(metrics, self._sums, skipped=self._nonfinite.skipped),
            **(self._task.refresh.fields(step) if self._task.refresh else {}),
            **evaluated,
            "examples_per_second": round(steps * self._task.examples_per_step / spent["seconds"], 3),
            **self._task.speeds(done, steps=steps, seconds=spent["seconds"]),
            "checkpoint_seconds": spent["checkpoint_seconds"],
        }
        self._log.metrics(line)
        self._log.goodput({"step": step, **spent, **gathered_times(processes.current(), spent, steps=steps)})
        self._logged_at, self._sums, self._earlier = step, {}, {}

    def _print_end(self, step: int) -> None:
        best = self._progress.best
        if best is not None and processes.current().is_first and step < self._task.steps:
            say(
                f"stopped early at step {step} of {self._task.steps}: {self._progress.evaluations_since_best} "
                f"evaluations since step {best.step} were not better than {best.metric:.4f}"
            )

    def _print_header(self) -> None:
        if not processes.current().is_first:
            return
        task, devices = self._task, self._task.mesh.devices.ravel()
        shape = " x ".join(f"{name} {size}" for name, size in task.mesh.shape.items())
        say(
            f"devices: {devices.size} x {devices[0].device_kind}, mesh: {shape}, {task.details}, steps: "
            f"{self._first} to {task.steps} of {task.examples_per_step} {task.unit}"
        )


def _is_multiple(step: int, interval: int) -> bool:
    """Returns whether an interval in steps ends at a step; the interval 0 never ends."""
    return interval > 0 and step % interval == 0
