"""The lists that two cells retrieve for the same test queries, which an example is chosen from.

TABLE/runs/CELL-RATE/lists/  per_query.parquet, retrieved.parquet and relevant.parquet of the cell's evaluation, and
                             inputs.json, the inputs of the cell

They are kept when the evaluation is removed, for the two cells of the example alone.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object

LISTS = "lists"
TESTS = ("hidden_relevant", "ct")
"""The tests that an example can come from; the first one that both cells have is taken."""
DEPTH = 100
_INPUTS = "inputs.json"
_FILES = ("per_query.parquet", "retrieved.parquet", "relevant.parquet")


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The lists of one cell for one test."""

    recall: Mapping[str, float]
    """Query -> Recall@100."""
    first: Mapping[str, list[dict[str, Any]]]
    """Query -> its first documents in order, each with "title" and "relevant"."""
    relevant: Mapping[str, list[dict[str, Any]]]
    """Query -> its relevant documents, each with "doc_id", "title" and "rank" (None beyond the depth of the search)."""


def keep_lists(evaluation: Path, folder: Path, inputs: Mapping[str, Any]) -> None:
    """Copies the files of an evaluation that lists are read from into the folder of the run.

    Args:
      evaluation: the directory of launch.evaluate.
      folder: the folder of the run.
      inputs: the inputs of the cell.
    """
    kept = folder / LISTS
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in _FILES:
        if (evaluation / name).exists():
            shutil.copyfile(evaluation / name, kept / name)
    write_text(kept / _INPUTS, json.dumps(inputs) + "\n")


def kept_lists(runs: Path, cell: str, inputs: Mapping[str, Any]) -> Path | None:
    """Returns the folder of the lists of a cell that were made from these inputs; None if there is none."""
    for file in sorted(runs.glob(f"{cell}-*/{LISTS}/{_INPUTS}")):
        whole = all((file.parent / name).exists() for name in _FILES)
        if whole and read_object(file, remedy="remove its folder") == inputs:
            return file.parent
    return None


def read_lists(kept: Path, test: str) -> Lists | None:
    """Returns the lists of the encoder for a test; None if the test is absent.

    Args:
      kept: the folder of the lists.
      test: the name of the test set.
    """
    wanted = [("test", "=", test), ("system", "=", "encoder")]
    metric = [*wanted, ("pairs", "=", "all"), ("metric", "=", f"recall@{DEPTH}")]
    values = pq.read_table(kept / "per_query.parquet", filters=metric).to_pylist()
    if not values:
        return None
    first: dict[str, list[dict[str, Any]]] = {}
    rows = pq.read_table(kept / "retrieved.parquet", filters=wanted).to_pylist()
    for row in sorted(rows, key=lambda row: row["rank"]):
        first.setdefault(row["query"], []).append({"title": row["title"], "relevant": row["relevant"]})
    relevant: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(kept / "relevant.parquet", filters=[("test", "=", test)]).to_pylist():
        document = {"doc_id": row["doc_id"], "title": row["title"], "rank": row["encoder_rank"]}
        relevant.setdefault(row["query"], []).append(document)
    return Lists(recall={row["query"]: row["value"] for row in values}, first=first, relevant=relevant)
