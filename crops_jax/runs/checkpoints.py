"""Checkpoints of a run: parameters, optimiser state, step and the run's identity, saved together or not at all.

RUN/checkpoints/STEP/{parameters,average,optimizer,progress} are the items of one Orbax checkpoint; average exists only
when the run keeps a moving average of its weights. Orbax writes into a temporary folder and renames it when it is
complete, so that every folder whose name is a step is whole. Saving is asynchronous: `save` returns when the arrays are
copied.

For a run in a bucket (crops_jax.storage.remote.run), each process lets Orbax write its part of a checkpoint to its own
disk and uploads it. Several processes write a file for each piece of an array, so that the files of all parts together
are a checkpoint. Orbax itself does not write to every bucket: it takes s3:// for a folder of this machine.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from crops_jax.config.stored import ConfigSections, binding_sections, config_hash, differing_fields
from crops_jax.devices import processes
from crops_jax.errors import InputError, NamedFailure, is_full_disk, one_line
from crops_jax.runs.checkpoint_folder import (
    FOLDER,
    Best,
    Progress,
    as_progress,
    best_step,
    read_json,
    read_progress,
    required_object,
    saved_steps,
    unreadable,
)
from crops_jax.runs.checksums import tree_checksums
from crops_jax.storage.remote import run as remote_run

__all__ = [
    "FOLDER",
    "ITEMS",
    "Best",
    "Checkpoints",
    "Progress",
    "best_step",
    "read_item",
    "read_progress",
    "restore_parameters",
    "saved_items",
    "saved_steps",
]

ITEMS = ("parameters", "average", "optimizer")
"""The trees of arrays of a checkpoint. average exists only when the run keeps a moving average of its weights."""
_LONGEST_SAVE_SECONDS = 365 * 86_400
"""The limit after which Orbax gives a save up, by the clock of the machine, which may be set in the meantime. Its
default of 20 minutes is what a large checkpoint takes on a slow disk. crops_jax.runs.watchdog finds a save that hangs.
"""
_TEMPORARY = ".orbax-checkpoint-tmp"
_EXPECTED_WARNINGS = ("Global object size logging disabled", "Skipping merge of OCDBT checkpoints")
_SHARED_BYTES = 1 << 24
"""The smallest piece of an array on several devices that is written by more than one process, so that a bucket does not
get many tiny objects."""


class Checkpoints:
    """The checkpoints of one run, for the program that trains it.

    It keeps the last `keep_last` checkpoints and the best one, which the newest checkpoint names.
    """

    def __init__(self, run: Path | str, config: ConfigSections, *, keep_last: int):
        self.path = Path(run).absolute() / FOLDER
        self._config = config
        self._keep_last = keep_last
        self._cluster = processes.current()
        self._remote = remote_run.of(run)
        with self._cluster.together():
            if self._cluster.is_first or self._remote:
                self.path.mkdir(parents=True, exist_ok=True)
                _remove_half_written(self.path)
        in_parts = self._remote and self._cluster.count > 1
        self._manager = _manager_of_parts(self.path) if in_parts else _manager(self.path)

    def latest(self) -> int | None:
        """Returns the newest step that is whole, or None. Several processes use the answer of the first one."""
        return self._cluster.from_first(max(saved_steps(self.path), default=None))

    def save(self, step: int, items: Mapping[str, Any], progress: Progress) -> None:
        """Starts to save a step, after the previous save has ended.

        Args:
          step: the number of the step.
          items: trees of arrays by the names in ITEMS. They can be donated as soon as this method returns.
          progress: the part of the checkpoint that is not arrays.

        Raises NamedFailure when the disk is full or fails.
        """
        self.wait()
        checksums = {name: tree_checksums(item) for name, item in items.items()}
        with self._failures_are_named():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    progress=ocp.args.JsonSave(_as_json(progress, self._config) | {"checksums": checksums}),  # type: ignore[call-arg]
                    **{name: ocp.args.PyTreeSave(item) for name, item in items.items()},  # type: ignore[call-arg]
                ),
                force=True,
            )
        if self._remote:
            self._remote.checkpoints.start_upload(
                step,
                written=self._manager.wait_until_finished,
                kept=lambda steps: _kept(steps, self._keep_last, progress.best),
            )

    def wait(self) -> None:
        """Waits until saved checkpoints are on disk or in the bucket, and removes those that are not kept.

        Raises NamedFailure as `save`, and when a bucket does not take the checkpoint.
        """
        with self._failures_are_named():
            if self._remote:
                self._remote.checkpoints.wait()
            else:
                self._manager.wait_until_finished()
        self._prune()

    def restore(self, step: int, like: Mapping[str, Any]) -> tuple[dict[str, Any], Progress]:
        """Returns the trees of arrays and the progress of a step, whichever mesh it was saved from.

        Args:
          step: the number of the step.
          like: the items that were saved, as trees of jax.ShapeDtypeStruct with the shardings of the restored arrays.

        Raises InputError when the checkpoint has another configuration or is damaged.
        """
        try:
            items: Any = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    progress=ocp.args.JsonRestore(),
                    **{name: _restore_as(item) for name, item in like.items()},
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            raise unreadable(self.path / str(step), error) from error
        _check_config(self.path / str(step), items.progress, self._config)
        restored = {name: items[name] for name in like}
        for name, item in restored.items():
            _check_sums(self.path / str(step), items.progress, name, item)
        return restored, as_progress(items.progress)

    def close(self) -> None:
        """Waits for a running save, and closes the checkpoints."""
        if self._remote:
            self._remote.checkpoints.join()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # After an error the other processes may have ended, and this one would wait for their part of a save forever.
        # The folder of such a save does not have its final name yet, and the next call removes it.
        if error is None or self._cluster.count == 1:
            self.close()

    def last_good(self) -> str:
        """Returns a clause for messages that names the last whole checkpoint. It first waits for a running save."""
        with suppress(Exception):
            if self._remote:
                self._remote.checkpoints.join()
                return self._remote.checkpoints.last_good()
            self._manager.wait_until_finished()
        step = max(saved_steps(self.path), default=None)
        return "there is no checkpoint yet" if step is None else f"the last good checkpoint is {self.path / str(step)}"

    def _prune(self) -> None:
        steps = sorted(saved_steps(self.path))
        if not steps or not (self._cluster.is_first or self._remote):
            return
        if self._remote:
            kept = {steps[-1]}  # the others are in the bucket
        else:
            kept = _kept(steps, self._keep_last, read_progress(self.path / str(steps[-1])).best)
        for step in set(steps) - kept:
            # The folder is renamed first, so that every folder whose name is a step is whole at any moment.
            doomed = self.path / f"{step}{_TEMPORARY}"
            (self.path / str(step)).rename(doomed)
            shutil.rmtree(doomed)
        if set(steps) - kept:
            self._manager.reload()

    @contextmanager
    def _failures_are_named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            is_full = is_full_disk(error)
            if not is_full and not isinstance(error, OSError):
                raise
            if self._cluster.is_first or self._remote:
                _remove_half_written(self.path)
            cause = "the disk is full" if is_full else f"of an error ({one_line(error)})"
            remedy = "free some space" if is_full else "look at the disk"
            raise NamedFailure(
                f"{self.path}: the checkpoint was not written, because {cause}; {self.last_good()}; {remedy} and call "
                "the same command again"
            ) from error


def _manager(folder: Path) -> ocp.CheckpointManager:
    """Returns Orbax's manager of checkpoints on a file system that all processes share."""
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=None, enable_async_checkpointing=True, async_options=_asynchronous()
        ),
        item_handlers={
            **{name: ocp.PyTreeCheckpointHandler() for name in ITEMS},
            "progress": ocp.JsonCheckpointHandler(),
        },
    )


def _manager_of_parts(folder: Path) -> ocp.CheckpointManager:
    """Returns Orbax's manager of the parts of checkpoints that this process writes to a disk of its own.

    Each piece of an array is a file of its own, whose name says which piece it is, because the files of OCDBT cannot be
    joined without a file system that all processes share.
    """
    logging.getLogger("absl").addFilter(_is_unexpected)
    options = ocp.options.MultiprocessingOptions(primary_host=None)
    arrays = ocp.type_handlers.ArrayHandler(
        primary_host=None, replica_id=0, min_slice_bytes_for_replica_parallel=_SHARED_BYTES
    )
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))

    def handler() -> ocp.PyTreeCheckpointHandler:
        return ocp.PyTreeCheckpointHandler(
            use_ocdbt=False, multiprocessing_options=options, type_handler_registry=registry
        )

    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=None,
            enable_async_checkpointing=True,
            async_options=_asynchronous(),
            create=False,
            multiprocessing_options=options,
        ),
        item_handlers={
            **{name: handler() for name in ITEMS},
            "progress": ocp.JsonCheckpointHandler(multiprocessing_options=options),
        },
    )


def _asynchronous() -> ocp.AsyncOptions:
    # A thread that makes the folders would be waited for with a limit of its own.
    return ocp.AsyncOptions(timeout_secs=_LONGEST_SAVE_SECONDS, create_directories_asynchronously=False)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Returns whether a record of Orbax is none of its warnings about parts, which are as they should be."""
    return not any(words in record.getMessage() for words in _EXPECTED_WARNINGS)


def _kept(steps: list[int], keep_last: int, best: Best | None) -> set[int]:
    """Returns which of the saved steps, in ascending order, are kept."""
    return {*steps[-keep_last:], *([best.step] if best else [])}


def restore_parameters(run: Path | str, *, which: Literal["best", "last"] = "best") -> dict[str, Any]:
    """Returns the parameters of a run on the host, whatever mesh they were saved from. The run can still train.

    When the run keeps a moving average of its weights, the average is returned.

    Args:
      run: the folder RUN of launch.train.
      which: "best" by the dev metric (the last checkpoint, when nothing was evaluated) or "last".

    Returns:
      A nested dictionary of NumPy arrays, like nnx.to_pure_dict(nnx.state(model, nnx.Param)) of the model.

    Raises InputError when the run has no checkpoint.
    """
    folder = Path(run).absolute() / FOLDER
    step = best_step(run) if which == "best" else max(saved_steps(folder), default=None)
    if step is None:
        raise InputError(f"{run}: there is no checkpoint in it yet; let launch.train save one first")
    checkpoint = folder / str(step)
    return read_item(checkpoint, "average" if "average" in saved_items(checkpoint) else "parameters")


def saved_items(checkpoint: Path) -> list[str]:
    """Returns the names of ITEMS that a checkpoint holds. Raises InputError when it cannot be read."""
    return list(required_object(checkpoint, read_json(checkpoint), "checksums"))


def read_item(checkpoint: Path, name: str) -> dict[str, Any]:
    """Reads one of ITEMS as nested dictionaries and lists of NumPy arrays, whatever mesh it was saved from.

    Raises InputError when the item cannot be read, or its arrays are not those that were saved.
    """
    path = checkpoint.absolute() / name  # Orbax refuses relative paths
    # The handler is used directly: a Checkpointer waits for all processes, and a single process must be able to read.
    with closing(ocp.PyTreeCheckpointHandler()) as handler:
        try:
            tree = handler.metadata(path).tree  # type: ignore[arg-type]
            to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restored = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=to_host))  # type: ignore[call-arg]
        except (ValueError, KeyError, OSError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path}: the checkpoint cannot be read ({one_line(error)}); remove the folder of that step"
            ) from error
    restored = _with_integer_keys(restored)
    _check_sums(checkpoint, read_json(checkpoint), name, restored)
    return restored


def _restore_as(abstract: Any) -> Any:
    arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
    return ocp.args.PyTreeRestore(item=abstract, restore_args=arguments)  # type: ignore[call-arg]


def _as_json(progress: Progress, config: ConfigSections) -> dict[str, Any]:
    sections = binding_sections(config)
    return {
        "best": progress.best and progress.best._asdict(),
        "accumulated": progress.accumulated,
        "evaluations_since_best": progress.evaluations_since_best,
        "config": sections,
        "config_sha256": config_hash(sections),
    }


def _check_config(checkpoint: Path, stored: dict[str, Any], config: ConfigSections) -> None:
    """Raises InputError when a checkpoint has another configuration, or does not record its configuration."""
    sections = required_object(checkpoint, stored, "config")
    if config_hash(sections) != stored.get("config_sha256"):
        raise unreadable(checkpoint, ValueError("its configuration is not what was saved"))
    if differing := differing_fields(sections, config):
        raise InputError(
            f"{checkpoint}: the checkpoint has another configuration than config.json of the run: "
            f"{'; '.join(differing)}. Was one of them replaced? Choose another --output"
        )


def _check_sums(checkpoint: Path, stored: dict[str, Any], item: str, tree: Any) -> None:
    """Raises InputError when restored arrays are not those that were saved."""
    expected = required_object(checkpoint, stored, "checksums").get(item, {})
    actual = tree_checksums(tree)
    differing = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if differing:
        raise unreadable(checkpoint, ValueError(f"{item} {differing[0]} is not what was saved"))


def _with_integer_keys(tree: Any) -> Any:
    """Returns a tree with integer keys for the members of lists, as NNX has them; Orbax names them by strings."""
    if not isinstance(tree, dict):
        return tree
    return {int(key) if str(key).isdecimal() else key: _with_integer_keys(value) for key, value in tree.items()}


def _remove_half_written(folder: Path) -> None:
    for entry in folder.glob(f"*{_TEMPORARY}*"):
        try:
            shutil.rmtree(entry)
        except OSError as error:
            warnings.warn(f"{entry}: left over and not removable ({error})", stacklevel=2)
