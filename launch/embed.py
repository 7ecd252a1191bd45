"""Embeds a table of texts with a run or an untrained encoder, shard by shard; called again it goes on."""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.devices import processes
from crops_jax.devices.processes import Processes
from crops_jax.embeddings import Layout, shard_is_finished, write_shard
from crops_jax.embeddings.encoder import Encoder
from crops_jax.embeddings.stored_vectors import VectorType
from crops_jax.errors import InputError, NamedFailure
from crops_jax.runs.encoder import open_encoder
from launch.corpus.text_table import TextTable, open_text_table

# Texts that are sorted by length together; the bar moves so often.
_CHUNK_TEXTS = 4096
# Arguments that change how fast, never what.
_SPEED = {"batch_tokens"}


@dataclass(frozen=True, kw_only=True)
class EmbedArguments:
    run: str
    """A run, the folder of an untrained encoder, or the name of a Hugging Face hub repository."""
    texts: str
    """A Parquet file or folder with id and text or with the columns of documents, or log tables with documents. With
    --tower query a directory of labels is taken too: its distinct queries, each its own id."""
    tower: Literal["query", "document"]
    """Which side of the dual encoder, with its token limit and prompt."""
    output: str
    """Where the shards go; read by crops_jax.embeddings.open_embeddings."""
    dtype: VectorType = "float32"
    """How vectors are stored: float32 takes 4 bytes a number, bfloat16 2 and int8 1
    (crops_jax.embeddings.stored_vectors).
    """
    dim: int | None = None
    """So many leading components, normalised again; of a run, one of those it was trained for
    (--loss.matryoshka-dims). Default: all."""
    shard_size: int = 32768
    """Rows of a shard: what is lost at most when the program is stopped."""
    batch_tokens: int | None = None
    """Tokens of one batch, padding included. Default: 2048 on a CPU, 16384 elsewhere."""
    overwrite: bool = False
    """Starts anew whatever is at --output."""


def embed(arguments: EmbedArguments) -> dict[str, Any]:
    """Embeds texts into sharded files of unit vectors with their ids; finished shards are kept.

    Several processes share the shards when all are started with this same command
    (crops_jax.devices.cluster_environment says how they find one another) and share the file system of --output. Their
    number may change from call to call.
    """
    with processes.joined() as cluster:
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

    left = _unfinished(output, layout, table, cluster)
    own, done = left[cluster.index :: cluster.count], layout.rows - _rows(layout, left)
    total, silent = done + _rows(layout, own), not cluster.is_first
    with tqdm(total=total, initial=done, unit="text", desc="embedding", disable=silent) as bar:
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
            _check_finite(vectors, table, first, arguments.run)
            write_shard(output, layout, shard, ids=table.ids[first:last], vectors=vectors)
    cluster.gathered(None)  # said to be done when all are
    return {
        "output": arguments.output,
        "tower": arguments.tower,
        "rows": layout.rows,
        "dim": layout.dim,
        "dtype": layout.dtype,
        "shards": layout.shards,
        "shards_written": len(left),
    }


def _manifest(arguments: EmbedArguments, table: TextTable, encoder: Encoder, layout: Layout) -> dict[str, Any]:
    named = asdict(arguments)
    # Log tables with a manifest are known by it, so that later steps see which logs these are; else by the table read.
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
        # The manifest of a run that trained on is the same; its best weights are not.
        encoder=encoder.fingerprint,
    )


def _open_output(output: Path, arguments: EmbedArguments, manifest: Mapping[str, Any]) -> None:
    """Makes the directory and its manifest, or takes up those of an earlier call. InputError on a foreign one."""
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
    """Raises InputError, in all processes, when one was started with other arguments or inputs."""
    first, *others = cluster.gathered(manifest)
    for index, found in enumerate(others, start=1):
        if not in_place.is_same(found, first):
            raise InputError(
                f"process {index} was not started as process 0 ({in_place.difference(found, first)}); give the same "
                "command to all"
            )


def _unfinished(output: Path, layout: Layout, table: TextTable, cluster: Processes) -> list[int]:
    """Shards that are not there or not whole. Each process reads its share of those that are."""
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


def _check_finite(vectors: np.ndarray, table: TextTable, first: int, run: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise NamedFailure(
            f"{run}: the vector of {table.ids[first + bad[0]]!r} is not finite, so the weights are "
            "not either; the shards written so far are kept"
        )


if __name__ == "__main__":
    program.run(
        embed,
        example="python -m launch.embed --run run --texts logs/documents.parquet --tower document --output embeddings",
    )
