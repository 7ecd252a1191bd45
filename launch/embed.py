"""Embeds a table of texts with a run or an untrained encoder, shard by shard; called again it goes on."""

import itertools
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from crops_jax import artifacts, program
from crops_jax.embeddings import Layout, shard_is_finished, write_shard
from crops_jax.encoder import Encoder, open_encoder
from crops_jax.errors import InputError, NamedFailure
from launch.text_table import TextTable, open_text_table

# Texts that are sorted by length together; the bar moves so often.
_CHUNK_TEXTS = 4096
# Arguments that change how fast, never what.
_SPEED = {"batch_tokens"}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    run: str
    """A run, the folder of an untrained encoder, or the name of a Hugging Face hub repository."""
    texts: str
    """A Parquet file or folder with id and text or with the columns of documents, or log tables with documents. With
    --tower query a directory of labels is taken too: its distinct queries, each its own id."""
    tower: Literal["query", "document"]
    """Which side of the dual encoder, with its token limit and prompt."""
    output: str
    """Where the shards go; read by crops_jax.embeddings.open_embeddings."""
    shard_size: int = 32768
    """Rows of a shard: what is lost at most when the program is stopped."""
    batch_tokens: int = 16384
    """Tokens of one batch, padding included."""
    overwrite: bool = False
    """Starts anew whatever is at --output."""


def embed(arguments: Arguments) -> dict[str, Any]:
    """Embeds texts into sharded float32 files of unit vectors with their ids; finished shards are kept."""
    for name in ("shard_size", "batch_tokens"):
        if getattr(arguments, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, found {getattr(arguments, name)}")
    table = open_text_table(arguments.texts, tower=arguments.tower)
    encoder = open_encoder(arguments.run)
    layout = Layout(rows=len(table.ids), dim=encoder.dim, shard_rows=arguments.shard_size)
    output = Path(arguments.output)
    _open_output(output, arguments, _manifest(arguments, table, encoder, layout))

    left = _unfinished(output, layout, table)
    with tqdm(total=layout.rows, initial=layout.rows - _rows(layout, left), unit="text", desc="embedding") as bar:
        for shard in left:
            first, last = layout.bounds(shard)
            vectors = np.empty((last - first, layout.dim), np.float32)
            start = 0
            for texts in _chunks(table.texts(first, last, tower=arguments.tower)):
                vectors[start : start + len(texts)] = encoder.encode(
                    texts, tower=arguments.tower, batch_tokens=arguments.batch_tokens
                )
                start += len(texts)
                bar.update(len(texts))
            _check_finite(vectors, table, first, arguments.run)
            write_shard(output, layout, shard, ids=table.ids[first:last], vectors=vectors)
    return {
        "output": arguments.output,
        "tower": arguments.tower,
        "rows": layout.rows,
        "dim": layout.dim,
        "shards": layout.shards,
        "shards_written": len(left),
    }


def _manifest(arguments: Arguments, table: TextTable, encoder: Encoder, layout: Layout) -> dict[str, Any]:
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


def _open_output(output: Path, arguments: Arguments, manifest: Mapping[str, Any]) -> None:
    """Makes the directory and its manifest, or finds those of an earlier call. Raises InputError on a foreign one."""
    ours = (output / artifacts.MANIFEST).is_file() and not arguments.overwrite
    if ours:
        found = artifacts.read_manifest(output)
        if found["fingerprint"] != manifest["fingerprint"]:
            raise InputError(
                f"{output} was made from other things ({_difference(found, manifest)}); "
                "add --overwrite to replace it, or choose another output"
            )
    else:
        run = arguments.run if Path(arguments.run).exists() else None
        artifacts.check_output(output, overwrite=arguments.overwrite, inputs={"run": run, "texts": arguments.texts})
        if output.exists():
            shutil.rmtree(output)
        output.mkdir(parents=True)
        artifacts.write_manifest(output, manifest)
    for torn in output.glob(".*.tmp"):
        torn.unlink()


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for name in ("kind", "version", "layout", "encoder"):
        if found.get(name) != wanted[name]:
            return f"{name} {found.get(name)}, now {wanted[name]}"
    for name, value in wanted["arguments"].items():
        if found["arguments"].get(name) != value:
            return f"--{name.replace('_', '-')} {found['arguments'].get(name)}, now {value}"
    changed = [name for name in wanted["inputs"] if found["inputs"].get(name) != wanted["inputs"][name]]
    return f"--{changed[0]} has changed" if changed else "its manifest differs"


def _unfinished(output: Path, layout: Layout, table: TextTable) -> list[int]:
    return [
        shard
        for shard in range(layout.shards)
        if not shard_is_finished(output, layout, shard, ids=table.ids[slice(*layout.bounds(shard))])
    ]


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
