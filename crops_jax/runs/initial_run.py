"""The run that another run starts from: its best weights, for the same architecture and the same tokenizer.

The manifest of the started run keeps the fingerprints of that run and of its weights. When a checkpoint of the started
run is there, the other run is not read again and may be gone.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from crops_jax import artifacts
from crops_jax.config import Config
from crops_jax.config.stored import CONFIG, read_config
from crops_jax.errors import InputError
from crops_jax.models.poly_encoder import QueryCodes
from crops_jax.runs import checkpoints
from crops_jax.text import tokenizer

INPUT = "initial_run"
"""The name of the run among the inputs of a manifest; its flag is --initial-run."""
WEIGHTS = "initial_weights"
"""The field of a manifest with the `weights_fingerprint` of what the run started from."""

_MAY_DIFFER = {
    "weights",
    "dropout",
    "remat",
    "attention",
    "compute_dtype",
    "max_query_tokens",
    "max_document_tokens",
}
"""The fields of an encoder's configuration that do not belong to its architecture."""


def has_checkpoint(run: Path) -> bool:
    """Returns whether a run has a checkpoint, so that it no longer needs what it started from."""
    return bool(checkpoints.saved_steps(run / checkpoints.FOLDER))


def check_initial_run(initial_run: Path, *, config: Config, records: Path) -> None:
    """Raises InputError when a run cannot be what a run of `config` on `records` starts from.

    It must be a run of launch.train with a checkpoint, with the architecture of `config` and the tokenizer of the
    records. Token limits, dropout, attention and the type of computation may differ, and a run with shared towers can
    start one with two towers, which begin as copies of the shared one. A dual encoder can start a Poly-encoder, whose
    codes are random. config.encoder.weights must be empty, because it
    names other weights to start from.
    """
    manifest = artifacts.read_manifest(initial_run)
    if (manifest["program"], manifest["kind"]) != ("launch.train", "run"):
        raise InputError(
            f"--initial-run {initial_run} was written by {manifest['program']} and holds {manifest['kind']}; give a "
            "run of launch.train"
        )
    if config.encoder.weights:
        raise InputError(
            f"--initial-run {initial_run} and encoder.weights {config.encoder.weights} both name the weights that "
            "training starts from; leave one of them out"
        )
    there, here = (asdict(each.encoder) for each in (read_config(initial_run / CONFIG), config))
    differing = [
        f"encoder.{name}: {there[name]} there, {value} here"
        for name, value in here.items()
        if name not in _MAY_DIFFER
        and there[name] != value
        and not (name == "shared_towers" and there[name])  # shared weights can become two towers
        and not (name == "query_codes" and not there[name])  # a dual encoder can get codes
    ]
    if differing:
        raise InputError(
            f"--initial-run {initial_run} is an encoder of another architecture: {'; '.join(differing)}; give these "
            "fields the values of that run, or another run"
        )
    if tokenizer.fingerprint(initial_run / "tokenizer") != tokenizer.fingerprint(records / "tokenizer"):
        raise InputError(
            f"--initial-run {initial_run} was trained on records of another tokenizer than {records}; write the "
            f"records again with --tokenizer {initial_run / 'tokenizer'}"
        )
    if not has_checkpoint(initial_run):
        raise InputError(f"--initial-run {initial_run} has no checkpoint yet; let launch.train save one first")


def check_same_start(run: Path, initial_run: Path | None) -> None:
    """Raises InputError when a run that is there already was started in another way than `initial_run` says.

    A run that has a checkpoint may be resumed without the run that it was started from.
    """
    kept = artifacts.read_manifest(run)["inputs"].get(INPUT)
    if kept is None:
        if initial_run is not None:
            raise InputError(f"{run} was not started from a run; leave --initial-run out, or choose another --output")
        return
    if initial_run is None or not initial_run.exists():
        if not has_checkpoint(run):
            raise InputError(
                f"{run} starts from the weights of a run and has no checkpoint yet; give that run with --initial-run"
            )
    elif kept["fingerprint"] != artifacts.fingerprint(initial_run):
        raise InputError(
            f"{run} was started from another run than --initial-run {initial_run}; give that run, or choose another "
            "--output"
        )


def manifest_fields(initial_run: Path | None) -> dict[str, str]:
    """Returns the field of the manifest of a run that starts from another one; none where it does not."""
    return {} if initial_run is None else {WEIGHTS: weights_fingerprint(_best_weights(initial_run))}


def read_weights(initial_run: Path, *, run: Path, config: Config) -> dict[str, Any]:
    """Returns the parameters that a run starts from: the best weights of another run, with the temperature of `config`.

    Where the other run keeps a moving average of its weights, that is what they are.

    Args:
      initial_run: a run for which `check_initial_run` passes.
      run: the run that starts. If its manifest names initial weights, they must be these.
      config: the configuration of the run that starts.

    Returns:
      nested dictionaries of float32 arrays on the host. If the other run has one tower and `config` two, both have its
      weights. If it has no codes and `config` has, they are drawn from config.training.seed.

    Raises InputError if the weights are not those that the manifest names.
    """
    weights = _best_weights(initial_run)
    kept = artifacts.read_manifest(run).get(WEIGHTS) if (run / artifacts.MANIFEST).is_file() else None
    if kept is not None and kept != weights_fingerprint(weights):
        raise InputError(
            f"--initial-run {initial_run} has other weights now than those that {run} was begun with; let that run "
            "end first, and then choose another --output"
        )
    if not config.encoder.shared_towers and "tower" in weights:
        shared = weights["tower"]
        weights = {name: part for name, part in weights.items() if name != "tower"}
        weights |= {"query_tower": shared, "document_tower": shared}
    if config.encoder.query_codes and "query_codes" not in weights:
        codes = QueryCodes(config.encoder, rngs=nnx.Rngs(params=config.training.seed))
        weights = {**weights, "query_codes": nnx.to_pure_dict(nnx.state(codes, nnx.Param))}
    return {**weights, "log_inverse_temperature": np.float32(-np.log(config.loss.initial_temperature))}


def weights_fingerprint(weights: dict[str, Any]) -> str:
    """Returns the SHA-256 of parameters, of their paths and their float32 numbers, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf, np.float32).data)
    return digest.hexdigest()


def _best_weights(initial_run: Path) -> dict[str, Any]:
    return checkpoints.restore_parameters(initial_run, which="best")
