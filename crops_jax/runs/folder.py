"""The folder of a training run. It appears whole, and only the same run can open it again."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax import artifacts
from crops_jax.artifacts import in_place
from crops_jax.artifacts.lock import LOCK, exclusive
from crops_jax.config import Config
from crops_jax.config.stored import CONFIG, as_sections, differing_fields, read_sections, write_config
from crops_jax.devices import processes
from crops_jax.devices.processes import Processes
from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.records import ALL_DOCUMENTS, RecordSource, splits
from crops_jax.runs.initial_run import INPUT, check_initial_run, check_same_start, has_checkpoint, manifest_fields
from crops_jax.storage.remote import run as remote_run
from crops_jax.text import tokenizer

TOKENIZER = "tokenizer"
VECTORS = "document_embeddings"
"""The name of the vectors of frozen documents among the inputs of a manifest."""
_PROGRAM = "launch.train"
# The maximum wait until another machine sees a new folder, because network file systems cache what they read.
_VISIBLE_SECONDS = 60.0


@contextlib.contextmanager
def open_run(
    run: Path | str,
    *,
    config: Config,
    records: Path | str,
    arguments: Any,
    initial_run: Path | str | None = None,
    document_embeddings: Path | str | None = None,
) -> Iterator[Path]:
    """Makes RUN or opens it again, and locks it for this process or for the cluster that the process belongs to.

    A new folder appears whole, with config.json, tokenizer/ (copied from the records) and manifest.json. In an existing
    folder, config.json gets the new values of the fields that a run can change (such as mesh and intervals). Of several
    processes, the first one does this while the others wait. The folder of a run in a bucket is that of this process
    (crops_jax.storage.remote.run), and the others get the files through the bucket.

    Args:
      run: the folder.
      config: a resolved configuration, see crops_jax.pretrained.resolve_config.
      records: the records of data.write_records.
      arguments: the arguments that the manifest keeps.
      initial_run: the run whose best weights a new run starts from (crops_jax.runs.initial_run). None: the weights are
        random or those of config.encoder.weights.
      document_embeddings: the vectors of frozen documents, if the run has them.

    Raises InputError when the folder is not a run; when it is a run of other records or document vectors, another
    tokenizer or another configuration (the message names the fields); when another process or cluster trains in it;
    when the processes of a cluster were started with different configurations or inputs, or do not share a file system;
    or when `initial_run` does not fit, or is not the run that the folder was started from.
    """
    run, records, cluster = Path(run), Path(records), processes.current()
    start = None if initial_run is None else Path(initial_run)
    with cluster.together():
        check_records(records, config)
        if start is not None and not has_checkpoint(run):
            check_initial_run(start, config=config, records=records)
        vectors = None if document_embeddings is None else Path(document_embeddings)
        inputs = {"records": records, INPUT: start if start is not None and start.exists() else None, VECTORS: vectors}
        fingerprints = {name: None if path is None else artifacts.fingerprint(path) for name, path in inputs.items()}
    _check_alike(cluster, config, fingerprints)
    with contextlib.ExitStack() as stack:
        with cluster.together():
            if cluster.is_first:
                stack.enter_context(_opened(run, config, records, start, vectors, arguments))
        if remote := remote_run.of(run):
            remote.share()
        with cluster.together():
            _check_visible(run, cluster)
        yield run


@contextlib.contextmanager
def _opened(
    run: Path, config: Config, records: Path, start: Path | None, vectors: Path | None, arguments: Any
) -> Iterator[None]:
    """Makes or checks the folder, and locks it for this process until the block ends."""
    if not (run / artifacts.MANIFEST).exists():
        _create(run, config, records, start, vectors, arguments)
    refusal = f"another process trains in {run}; wait until it ends, or choose another --output"
    with exclusive(run / LOCK, refusal=refusal):
        _check_same_run(run, config, records)
        _check_same_vectors(run, vectors)
        check_same_start(run, start)
        write_config(run / CONFIG, config)
        yield


def _check_alike(cluster: Processes, config: Config, fingerprints: Mapping[str, str | None]) -> None:
    """Raises InputError in all processes when one of them was started with another configuration or other inputs."""
    settings = cluster.gathered({"config": as_sections(config), **fingerprints})
    first = settings[0]
    for index, other in enumerate(settings):
        differing = [
            f"{section}.{name}: {other['config'][section].get(name)}, but {value} in process 0"
            for section, fields in first["config"].items()
            for name, value in fields.items()
            if other["config"][section].get(name) != value
        ]
        differing += [
            f"--{name.replace('_', '-')}: other {'records' if name == 'records' else 'weights'}"
            for name in fingerprints
            if other[name] != first[name]
        ]
        if differing:
            raise InputError(
                f"process {index} was not started as process 0: {'; '.join(differing)}. Give the same command to all"
            )


def _check_visible(run: Path, cluster: Processes) -> None:
    """Raises InputError when this process does not see the RUN that process 0 has made."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while not (run / artifacts.MANIFEST).exists():
        if time.monotonic() > deadline:
            raise InputError(
                f"process {cluster.index} does not see {run}, which process 0 made: --output must lie on a file system "
                "that all processes share, under the same path in all of them"
            )
        time.sleep(0.1)


def check_records(records: Path, config: Config) -> None:
    """Raises InputError when `records` is not a folder of records or does not fit the configuration."""
    manifest = artifacts.read_manifest(records)
    if manifest["kind"] != "records":
        raise InputError(
            f"--records {records} holds {manifest['kind']}, not records; give what data.write_records wrote"
        )
    if config.training.early_stopping_evaluations and "dev" not in splits(records):
        raise InputError(
            f"--records {records} has no split dev, whose metric --training.early-stopping-evaluations watches; write "
            "the records with a --dev-fraction above 0, or train without early stopping"
        )
    check_positives(records)
    if config.negatives.refresh_every_steps and ALL_DOCUMENTS not in splits(records):
        raise InputError(
            f"--records {records} has no split {ALL_DOCUMENTS}, among which --negatives.refresh-every-steps mines; "
            "write the records with data.write_records --all-documents"
        )
    if config.loss.distillation != "none" and not RecordSource(records).scored:
        raise InputError(
            f"--records {records} have no scores, which --loss.distillation {config.loss.distillation} learns from; "
            "write the records with data.write_records --discriminator, such as SPLIT/discriminator, or leave "
            "--loss.distillation out"
        )
    tokens = tokenizer.load(records / TOKENIZER)
    if tokens.vocabulary_size > config.encoder.vocabulary_size:
        raise InputError(
            f"{records / TOKENIZER} has {tokens.vocabulary_size} tokens and encoder.vocabulary_size is "
            f"{config.encoder.vocabulary_size}; write the records with the encoder's tokenizer (--tokenizer), or raise "
            "--encoder.vocabulary-size"
        )
    if config.encoder.weights:
        from crops_jax.pretrained import folder  # transformers is needed for weights only

        expected = tokenizer.load(folder.describe(folder.locate(config.encoder.weights)).tokenizer)
        if expected.fingerprint != tokens.fingerprint:
            raise InputError(
                f"{records / TOKENIZER} is not the tokenizer of encoder.weights {config.encoder.weights}; write the "
                f"records again with --tokenizer {config.encoder.weights}"
            )


def check_positives(records: Path) -> None:
    """Raises InputError when no record of the split train has a document of level 4 or 5, from which losses learn.

    It reads up to the first such record.
    """
    source = RecordSource(records, split="train")
    if not any((record.document_levels >= Level.POSITIVE).any() for record in source):
        raise InputError(
            f"--records {records}: none of the {len(source)} queries of split train has a positive, a document of "
            f"level {Level.POSITIVE.value} or {Level.QUERY_LEVEL_POSITIVE.value} with a text, so there is nothing to "
            "learn; mine labels with positives, for example with other --grade-levels or with more perspectives"
        )


def _create(run: Path, config: Config, records: Path, start: Path | None, vectors: Path | None, arguments: Any) -> None:
    inputs = {"records": records, INPUT: start, VECTORS: vectors}
    manifest = artifacts.new_manifest(
        program=_PROGRAM,
        kind="run",
        arguments=arguments,
        inputs=inputs,
        tokenizer=tokenizer.fingerprint(records / TOKENIZER),
        **manifest_fields(start),
    )

    def fill(new: Path) -> None:
        write_config(new / CONFIG, config)
        shutil.copytree(records / TOKENIZER, new / TOKENIZER)

    in_place.begin(run, manifest, overwrite=None, inputs=inputs, fill=fill)


def _check_same_vectors(run: Path, vectors: Path | None) -> None:
    kept = artifacts.read_manifest(run)["inputs"].get(VECTORS)
    given = None if vectors is None else artifacts.fingerprint(vectors)
    if (kept and kept["fingerprint"]) != given:
        raise InputError(
            f"{run} was trained {'on other' if kept else 'without'} --{VECTORS.replace('_', '-')}; give the same as "
            "before, or choose another --output"
        )


def _check_same_run(run: Path, config: Config, records: Path) -> None:
    in_place.check_written_by(run, program=_PROGRAM, kind="run", noun="a run")
    manifest = artifacts.read_manifest(run)
    if manifest.get("tokenizer") != tokenizer.fingerprint(records / TOKENIZER):
        raise InputError(
            f"{run} was trained on records of another tokenizer than {records}; give its own records, or choose "
            "another --output"
        )
    if manifest["inputs"]["records"]["fingerprint"] != artifacts.fingerprint(records):
        raise InputError(
            f"{run} was trained on other records than {records}; give its own records, or choose another --output"
        )
    if differing := differing_fields(read_sections(run / CONFIG, remedy="choose another --output"), config):
        raise InputError(
            f"{run} was trained with another configuration: {'; '.join(differing)}. Only mesh, the intervals of "
            "logs, evaluations and checkpoints, training.profile_steps, training.skip_nonfinite_steps, data.workers, "
            "data.read_threads and data.cache can change; choose another --output"
        )
