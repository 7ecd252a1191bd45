"""Descriptions of the directories around training: records, runs, embeddings, encoders, discriminators.

Each function reads all of its directory, with the readers of crops_jax, which are imported where they are needed.
"""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from crops_jax.config.stored import CONFIG, read_sections
from crops_jax.errors import InputError
from crops_jax.labels import Level


def describe_records(path: Path) -> dict[str, Any]:
    """Training records: of each split the number of records, documents and labels, levels, lengths; a first record."""
    from crops_jax import records
    from crops_jax.text import tokenizer

    vocabulary_size = tokenizer.load(path / "tokenizer").vocabulary_size
    splits = {name: _describe_split(path, name, vocabulary_size) for name in records.splits(path)}
    return {"vocabulary_size": vocabulary_size, "splits": splits}


def _describe_split(path: Path, split: str, vocabulary_size: int) -> dict[str, Any]:
    from crops_jax import records

    source = records.RecordSource(path, split=split)
    levels = np.zeros(len(Level), np.int64)
    documents = longest_query = longest_document = 0
    for number in tqdm(range(len(source)), desc=f"reading {split}", unit=" records", delay=3, leave=False):
        record = source[number]
        texts = [record.query_tokens, *record.document_tokens]
        if any(len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocabulary_size for tokens in texts):
            raise InputError(
                f"{path}: split {split}, record {number} has tokens that are not of RECORDS/tokenizer "
                f"({vocabulary_size} tokens); write the records again"
            )
        levels += np.bincount(record.labelled_levels, minlength=len(Level))
        documents += len(record.document_ids)
        longest_query = max(longest_query, len(record.query_tokens))
        longest_document = max([longest_document, *map(len, record.document_tokens)])
    return {
        "records": len(source),
        "documents_with_text": documents,
        "labels": int(levels.sum()),
        "levels": {f"{level.value} {level.name}": int(levels[level]) for level in Level},
        "longest_query_tokens": longest_query,
        "longest_document_tokens": longest_document,
        "samples": [_readable(source[0], path)] if len(source) else [],
    }


def _readable(record: Any, path: Path) -> dict[str, Any]:
    import tokenizers

    decode = tokenizers.Tokenizer.from_file(str(path / "tokenizer" / "tokenizer.json")).decode
    return {
        "query": decode(record.query_tokens.tolist()),
        "documents": [
            {"level": int(level), "text": decode(tokens.tolist())}
            for level, tokens in zip(record.document_levels[:3], record.document_tokens[:3], strict=True)
        ],
        "labelled": len(record.labelled_ids),
    }


def describe_run(path: Path) -> dict[str, Any]:
    """A training run, finished or under way: checkpoints, with every array read, and the last logged step."""
    from crops_jax.runs import checkpoints, log
    from crops_jax.text import tokenizer

    config = read_sections(path / CONFIG, remedy="write the directory again")
    tokenizer.load(path / "tokenizer")
    metrics, torn = log.check_log(path / log.METRICS)
    goodput, _ = log.check_log(path / log.GOODPUT)
    steps = sorted(checkpoints.saved_steps(path / checkpoints.FOLDER))
    saved = {str(step): _describe_checkpoint(path / checkpoints.FOLDER / str(step)) for step in steps}
    return {
        "checkpoints": saved,
        "best_step": checkpoints.best_step(path),
        "logged_steps": len(metrics),
        "torn_last_line": torn,
        "last_logged": metrics[-1] if metrics else None,
        "goodput_lines": len(goodput),
        "config": config,
    }


def _describe_checkpoint(path: Path) -> dict[str, Any]:
    import jax

    from crops_jax.runs import checkpoints

    progress, parameters = checkpoints.read_progress(path), 0
    for name in sorted({"parameters", "optimizer", *checkpoints.saved_items(path)}):
        arrays = jax.tree.leaves_with_path(checkpoints.read_item(path, name))
        for place, array in arrays if name != "optimizer" else []:
            if not np.isfinite(array).all():
                raise InputError(
                    f"{path}: parameter {jax.tree_util.keystr(place)} is not finite; go back to another step"
                )
        if name == "parameters":
            parameters = sum(array.size for _, array in arrays)
    best = progress.best and progress.best._asdict()
    return {"parameters": parameters, "best": best}


def describe_embeddings(path: Path) -> dict[str, Any]:
    """Embeddings: rows, dimension, norms, first ids. Vectors must be finite, and those the ids were written with."""
    from crops_jax import embeddings

    found, layout = embeddings.open_embeddings(path), embeddings.read_layout(path)
    least, greatest = np.inf, 0.0
    for shard, (ids, vectors) in enumerate(embeddings.iterate(found)):
        file = path / layout.file("embeddings", shard)
        if not embeddings.shard_is_finished(path, layout, shard, ids=ids):
            raise InputError(f"{file}: not the vectors that its ids were written with; call launch.embed again")
        norms = np.linalg.norm(vectors[:], axis=1)
        broken = np.flatnonzero(~np.isfinite(norms))
        if len(broken):
            raise InputError(f"{file}, row {broken[0]} (counted from 0): not finite; check the run, then embed again")
        least, greatest = min(least, norms.min(initial=np.inf)), max(greatest, norms.max(initial=0.0))
    return {
        "rows": layout.rows,
        "dim": layout.dim,
        "dtype": layout.dtype,
        "shards": layout.shards,
        "norms": {"least": float(least), "greatest": float(greatest)} if layout.rows else None,
        "distinct_ids": len(set(found.ids)),
        "samples": found.ids[:3],
    }


def describe_encoder(path: Path) -> dict[str, Any]:
    """An exported encoder: loaded, and asked for one vector."""
    from crops_jax.pretrained import load_encoder

    vector = load_encoder(path).encode(["a text"])[0]
    if not np.isfinite(vector).all():
        raise InputError(f"{path}: the encoder gives vectors that are not finite; export it again")
    return {"dim": len(vector), "files": sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())}


def describe_discriminator(path: Path) -> dict[str, Any]:
    """A discriminator: what it was fitted on, and its probability for one pair."""
    from data.mining.theta import open_theta

    theta = open_theta(path)
    score = theta.discriminator.score(["red shoe"], ["a red shoe"])[0]
    return {"fitted": theta.fitted, "samples": [{"query": "red shoe", "document": "a red shoe", "theta": float(score)}]}
