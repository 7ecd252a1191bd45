"""Embeds a table of texts with a run or an untrained encoder, shard by shard. A second call continues the first."""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.devices import processes
from crops_jax.devices.processes import ClusterConfig, Processes
from crops_jax.embeddings import Layout, shard_is_finished, write_shard
from crops_jax.embeddings.stored_vectors import VectorType
from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.program.progress import ProgressLine
from crops_jax.runs.encoder import open_encoder
from crops_jax.storage import InputPath, ResumedPath
from launch.corpus.text_table import TextTable, open_text_table

if TYPE_CHECKING:
    from crops_jax.embeddings.encoder import Encoder

# The number of texts that are sorted by length together, and the step of the progress bar.
_CHUNK_TEXTS = 4096
# Arguments that change the speed, or how processes are watched, and never the result.
_SPEED = {"batch_tokens", "cluster"}


@dataclass(frozen=True, kw_only=True)
class EmbedArguments:
    run: InputPath
    """A run, the folder of an untrained encoder, or the name of a repository on the Hugging Face hub."""
    texts: InputPath
    """A Parquet file or folder that has the columns id and text or the columns of documents, or log tables with
    documents. --tower query also accepts a directory of labels: its distinct queries are embedded, and the id of a
    query is the query."""
    tower: Literal["query", "document"]
    """The side of the dual encoder. It decides the token limit and the prompt."""
    output: ResumedPath
    """The directory for the shards. crops_jax.embeddings.open_embeddings reads it."""
    dtype: VectorType = "float32"
    """The type of stored vectors: float32 takes 4 bytes for each component, bfloat16 2 and int8 1
    (crops_jax.embeddings.stored_vectors).
    """
    dim: int | None = None
    """The number of leading components that are kept and normalised again. For a run it must be one that the run was
    trained for (--loss.matryoshka-dims). The default is all."""
    shard_size: int = 32768
    """The number of rows of a shard. At most one unfinished shard is lost when the program is stopped."""
    batch_tokens: int | None = None
    """The number of tokens of one batch, padding included. The default is 2048 on a CPU and 16384 elsewhere."""
    overwrite: bool = False
    """Replaces the directory at --output and starts from the first shard."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("run", "texts", "tower"),
        "output": ("output", "dtype", "dim", "shard_size", "overwrite"),
        "advanced": ("batch_tokens",),
    }


def embed(arguments: EmbedArguments) -> dict[str, Any]:
    """Embeds texts into sharded files of unit vectors with their ids; finished shards are kept.

    Several processes share the work if all are started with the same command and see the same file system at --output
    (crops_jax.devices.cluster_environment describes how they connect). Their number can change from call to call.
    """
    with processes.joined(arguments.cluster) as cluster:
        return _embed(arguments, cluster)


def _embed(arguments: EmbedArguments, cluster: Processes) -> dict[str, Any]:
    for name in ("shard_size", "batch_tokens"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, found {value}")
    table = open_text_table(arguments.texts, tower=arguments.tower)
    encoder = open_encoder(arguments.run)
    dim = encoder.checked_dim(arguments.dim)
    layout = Layout(rows=len(table.ids), dim=dim, shard_rows=arguments.shard_size, dtype=arguments.dtype)
    output = Path(arguments.output)
    manifest = _manifest(arguments, table, encoder, layout)
    _check_alike(manifest, cluster)
    with cluster.together():
        if cluster.is_first:
            _open_output(output, arguments, manifest)

    unfinished = _unfinished(output, layout, table, cluster)
    own, done = unfinished[cluster.index :: cluster.count], layout.rows - _rows(layout, unfinished)
    total, silent = done + _rows(layout, own), not cluster.is_first
    with ProgressLine(total=total, initial=done, unit="texts", desc="embedding", delay=0, disable=silent) as bar:
        for shard in own:
            first, last = layout.bounds(shard)
            vectors = np.empty((last - first, layout.dim), np.float32)
            start = 0
            for texts in _chunks(table.texts(first, last, tower=arguments.tower)):
                vectors[start : start + len(texts)] = encoder.encode(
                    texts, tower=arguments.tower, batch_tokens=arguments.batch_tokens, dim=dim
                )
                start += len(texts)
                bar.update(len(texts))
            write_shard(output, layout, shard, ids=table.ids[first:last], vectors=vectors)
    cluster.gathered(None)  # the outcome is printed only when every process has finished
    return {
        "output": arguments.output,
        "tower": arguments.tower,
        "rows": layout.rows,
        "dim": layout.dim,
        "dtype": layout.dtype,
        "shards": layout.shards,
        "shards_written": len(unfinished),
    }


def _manifest(arguments: EmbedArguments, table: TextTable, encoder: "Encoder", layout: Layout) -> dict[str, Any]:
    named = asdict(arguments)
    # Log tables with a manifest are identified by it, so that later steps know the logs; others by the table itself.
    has_manifest = (Path(arguments.texts) / artifacts.MANIFEST).is_file()
    inputs: dict[str, Path | str | None] = {"texts": arguments.texts if has_manifest else table.path}
    if Path(arguments.run).is_dir():
        inputs["run"] = arguments.run
    return artifacts.new_manifest(
        program="launch.embed",
        kind="embeddings",
        arguments={name: value for name, value in named.items() if name not in _SPEED},
        inputs=inputs,
        layout=layout._asdict(),
        # A run that was trained further has the same manifest but other best weights.
        encoder=encoder.fingerprint,
    )


def _open_output(output: Path, arguments: EmbedArguments, manifest: Mapping[str, Any]) -> None:
    """Makes the directory with its manifest, or continues an earlier call. Raises InputError on another output."""
    run = arguments.run if Path(arguments.run).exists() else None
    in_place.claim(
        output,
        manifest,
        overwrite=arguments.overwrite,
        inputs={"run": run, "texts": arguments.texts},
        remedy="add --overwrite to replace it, or choose another output",
    )
    artifacts.remove_temporaries(output)


def _check_alike(manifest: Mapping[str, Any], cluster: Processes) -> None:
    """Raises InputError in all processes if one of them was started with other arguments or inputs."""
    first, *others = cluster.gathered(manifest)
    for index, other in enumerate(others, start=1):
        if not in_place.is_same(other, first):
            raise InputError(
                f"process {index} was not started as process 0 ({in_place.difference(other, first)}); give the same "
                "command to all"
            )


def _unfinished(output: Path, layout: Layout, table: TextTable, cluster: Processes) -> list[int]:
    """Returns the shards that are missing or incomplete. Each process checks its part of the existing shards."""
    own = [
        shard
        for shard in range(cluster.index, layout.shards, cluster.count)
        if not shard_is_finished(output, layout, shard, ids=table.ids[slice(*layout.bounds(shard))])
    ]
    return sorted(itertools.chain(*cluster.gathered(own)))


def _rows(layout: Layout, shards: list[int]) -> int:
    return sum(last - first for first, last in map(layout.bounds, shards))


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, _CHUNK_TEXTS)):
        yield chunk


if __name__ == "__main__":
    program.run(
        embed,
        example="python -m launch.embed --run run --texts logs/documents.parquet --tower document --output embeddings",
        uses_devices=True,
        then=(
            "launch.evaluate --run {run} --logs SPLIT --document-embeddings {output} --output EVALUATION",
            "launch.search --run {run} --logs SPLIT --document-embeddings {output} QUERY",
        ),
        device=True,
    )
