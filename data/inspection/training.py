"""Descriptions of directories of training: records, runs, embeddings, encoders and relevance discriminators (theta).

Each function reads its whole directory with the readers of crops_jax, which are imported only where they are needed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from crops_jax.config.stored import CONFIG, read_sections
from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.program.progress import ProgressLine


def describe_records(path: Path) -> dict[str, Any]:
    """Describes training records: for each split the counts, the levels, the maximum lengths, and the first record."""
    from crops_jax import records
    from crops_jax.text import tokenizer

    vocabulary_size = tokenizer.load(path / "tokenizer").vocabulary_size
    splits = {name: _describe_split(path, name, vocabulary_size) for name in records.splits(path)}
    return {"vocabulary_size": vocabulary_size, "splits": splits}


def _describe_split(path: Path, split: str, vocabulary_size: int) -> dict[str, Any]:
    from crops_jax import records

    source = records.RecordSource(path, split=split)
    levels = np.zeros(len(Level), np.int64)
    scored = 0
    documents = longest_query = longest_document = 0
    for number in ProgressLine(range(len(source)), desc=f"reading {split}", unit="records", leave=False):
        record = source[number]
        texts = [record.query_tokens, *record.document_tokens]
        if any(len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocabulary_size for tokens in texts):
            raise InputError(
                f"{path}: split {split}, record {number} has tokens that RECORDS/tokenizer does not have "
                f"({vocabulary_size} tokens); write the records again"
            )
        levels += np.bincount(record.labelled_levels, minlength=len(Level))
        documents += len(record.document_ids)
        if record.labelled_scores is not None:
            scored += int((~np.isnan(record.labelled_scores)).sum())
        longest_query = max(longest_query, len(record.query_tokens))
        longest_document = max([longest_document, *map(len, record.document_tokens)])
    return {
        "records": len(source),
        "documents_with_text": documents,
        "labels": int(levels.sum()),
        **({"labels_scored": scored} if source.scored else {}),
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
    """Describes a training run, finished or not: its checkpoints, with every array read, and the last logged step."""
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
        for array_path, array in arrays if name != "optimizer" else []:
            if not np.isfinite(array).all():
                raise InputError(
                    f"{path}: parameter {jax.tree_util.keystr(array_path)} is not finite; use another step"
                )
        if name == "parameters":
            parameters = sum(array.size for _, array in arrays)
    best = progress.best and progress.best._asdict()
    return {"parameters": parameters, "best": best}


def describe_embeddings(path: Path) -> dict[str, Any]:
    """Describes embeddings: rows, dimension, norms and first ids.

    Raises InputError if a vector is not finite, or if vectors and ids were not written together.
    """
    from crops_jax import embeddings

    opened, layout = embeddings.open_embeddings(path), embeddings.read_layout(path)
    minimum, maximum = np.inf, 0.0
    for shard, (ids, vectors) in enumerate(embeddings.iterate(opened)):
        file = path / layout.file("embeddings", shard)
        if not embeddings.shard_is_finished(path, layout, shard, ids=ids):
            raise InputError(
                f"{file}: these are not the vectors that its ids were written with; call launch.embed again"
            )
        norms = np.linalg.norm(vectors[:], axis=1)
        broken = np.flatnonzero(~np.isfinite(norms))
        if len(broken):
            raise InputError(
                f"{file}, row {broken[0]} (counted from 0): the vector is not finite; check the run, then call "
                "launch.embed again"
            )
        minimum, maximum = min(minimum, norms.min(initial=np.inf)), max(maximum, norms.max(initial=0.0))
    return {
        "rows": layout.rows,
        "dim": layout.dim,
        "dtype": layout.dtype,
        "shards": layout.shards,
        "norms": {"least": float(minimum), "greatest": float(maximum)} if layout.rows else None,
        "distinct_ids": len(set(opened.ids)),
        "samples": opened.ids[:3],
    }


def describe_encoder(path: Path) -> dict[str, Any]:
    """Describes an exported encoder. It is loaded and computes one vector."""
    from crops_jax.pretrained import load_encoder

    vector = load_encoder(path).encode(["a text"])[0]
    if not np.isfinite(vector).all():
        raise InputError(f"{path}: the encoder returns vectors that are not finite; export it again")
    return {"dim": len(vector), "files": sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())}


def describe_discriminator(path: Path) -> dict[str, Any]:
    """Describes a discriminator: the data that it was fitted on, and its probability for one pair."""
    from data.mining.relevance.theta import open_theta

    theta = open_theta(path)
    score = theta.discriminator.score(["red shoe"], ["a red shoe"])[0]
    return {"fitted": theta.fitted, "samples": [{"query": "red shoe", "document": "a red shoe", "theta": float(score)}]}
