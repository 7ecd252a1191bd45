"""Trains a dual encoder on records. A second call with the same RUN continues from the last checkpoint."""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crops_jax import program
from crops_jax.config import Config
from crops_jax.devices import processes
from crops_jax.devices.processes import ClusterConfig
from crops_jax.errors import InputError
from crops_jax.program.progress import say
from crops_jax.storage import InputPath, RecordsPath, RunPath

if TYPE_CHECKING:
    from crops_jax.training.frozen_documents import FrozenDocuments


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    config: program.ConfigArgument
    """The configuration of the experiment; a flag overrides each field."""
    records: RecordsPath
    """RECORDS, the directory that data.write_records wrote. Large records in a bucket are read by ranges; see
    --data.cache."""
    initial_run: InputPath | None = None
    """A run whose best weights a new RUN starts from. Its architecture must be that of the configuration, and its
    tokenizer that of the records. The temperature starts anew. A RUN that has a checkpoint does not read it again."""
    document_embeddings: InputPath | None = None
    """The vectors of all documents by the run of --initial-run (launch.embed --tower document). If they are given, the
    document tower is frozen and the query tower alone is trained: the loss of a query is over its first
    --loss.corpus-top documents of these, found again at every step (ADORE, arXiv 2104.08051)."""
    output: RunPath
    """RUN, the directory for config.json, tokenizer, checkpoints, metrics.jsonl, goodput.jsonl and tensorboard."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


def train(arguments: TrainArguments) -> dict[str, Any]:
    """Trains a dual encoder on the records of data.write_records, with the loss that --loss.name selects.

    The program writes into RUN while it trains; launch.status shows its state. SIGTERM saves a checkpoint and exits
    with status 3; without a signal, a checkpoint is saved every --training.checkpoint-every-seconds. The same command
    continues from the newest checkpoint, whatever stopped it before, and the result is the same as without an
    interruption. With --training.early-stopping-evaluations, a run can end before its last step and is finished then.
    Compiled programs are kept in RUN/compilation_cache, or in the directory that JAX_COMPILATION_CACHE_DIR names.

    Several processes train one model if all are started with the same command and see the same file system at RECORDS
    and RUN (crops_jax.devices.cluster_environment describes how they connect; launch/scripts has examples). Their
    number can change each time the run continues. RUN in a bucket needs no such file system.
    """
    from crops_jax.storage.remote import run as remote_run

    with (
        processes.joined(arguments.cluster) as cluster,
        remote_run.opened(arguments.output, cluster, program="launch.train", kind="run"),
    ):
        return _train(arguments)


def _train(arguments: TrainArguments) -> dict[str, Any]:
    # The imports are here because they are slow: an error in the environment is reported before them.
    from crops_jax import pretrained, training
    from crops_jax.runs import folder
    from crops_jax.runs.initial_run import has_checkpoint
    from crops_jax.runs.status import seconds_of

    config = pretrained.resolve_config(arguments.config)
    documents = _frozen_documents(arguments, config) if arguments.document_embeddings else None
    training.check_machine(config)  # before RUN is made, because a run keeps its first configuration
    _copy_small_shards(arguments)
    with folder.open_run(
        arguments.output,
        config=config,
        records=arguments.records,
        arguments=arguments,
        initial_run=arguments.initial_run,
        document_embeddings=arguments.document_embeddings,
    ) as run:
        obstacle = pretrained.export_obstacle(config.encoder, run / folder.TOKENIZER)
        if obstacle and processes.current().is_first:
            say(f"launch.export will refuse this run: {obstacle}")
        from_nothing = not (config.encoder.weights or arguments.initial_run or has_checkpoint(run))
        if from_nothing and processes.current().is_first:
            say("the encoder starts from random weights; --encoder.weights names a pretrained one, --initial-run a run")
        training.enable_compilation_cache(run)
        outcome = training.train(
            config,
            records_path=arguments.records,
            run=run,
            initial_run=arguments.initial_run,
            documents=documents,
        )
    seconds = {f"{part}_seconds": seconds_of(run, part) for part in ("compilation", "checkpoint")}
    return {"run": str(Path(arguments.output)), **outcome, **seconds}


def _copy_small_shards(arguments: TrainArguments) -> None:
    """Copies the shards of records in a bucket as --data.cache says, and prints which are read by ranges."""
    from crops_jax.storage.inputs import copy_shards

    cluster = processes.current()
    with cluster.together():
        remote = copy_shards(arguments.records, arguments.config.data.cache)
    if remote is not None and cluster.is_first:
        say(
            f"{remote.url}: {len(remote.entries)} shards of {remote.total_bytes / 1e9:.1f} GB are read by ranges; "
            "--data.cache shards copies them to CROPS_CACHE first"
        )


def _frozen_documents(arguments: TrainArguments, config: Config) -> "FrozenDocuments":
    """Returns the vectors of frozen documents, after checking that the run that starts this one has embedded them."""
    from crops_jax import artifacts, embeddings
    from crops_jax.runs.encoder import open_encoder
    from crops_jax.runs.initial_run import has_checkpoint
    from crops_jax.training.frozen_documents import FrozenDocuments, check_frozen

    check_frozen(config)
    path = str(arguments.document_embeddings)
    manifest, found = artifacts.read_manifest(path), embeddings.open_embeddings(path)
    if manifest["arguments"].get("tower") != "document":
        raise InputError(f"--document-embeddings {path}: vectors of queries; embed with launch.embed --tower document")
    if not has_checkpoint(Path(arguments.output)):
        if arguments.initial_run is None:
            raise InputError("--document-embeddings needs --initial-run, the run that embedded the documents")
        if manifest.get("encoder") != open_encoder(arguments.initial_run).fingerprint:
            raise InputError(
                f"--document-embeddings {path}: vectors of another encoder than --initial-run {arguments.initial_run}; "
                "embed the documents with that run"
            )
    if found.dim != config.encoder.dim:
        raise InputError(
            f"--document-embeddings {path}: vectors of {found.dim} numbers, and those of the "
            f"encoder have {config.encoder.dim}; embed the documents without --dim"
        )
    return FrozenDocuments(found.ids, found.array())


if __name__ == "__main__":
    program.run(
        train,
        example="python -m launch.train tiny_cpu --records records --output run",
        uses_devices=True,
        then=(
            "launch.embed --run {output} --texts SPLIT --tower document --output EMBEDDINGS",
            "launch.evaluate --run {output} --logs SPLIT --output EVALUATION",
            "launch.export --run {output} --output FOLDER",
        ),
        device=True,
    )
