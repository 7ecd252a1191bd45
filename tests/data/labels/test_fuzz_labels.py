"""Label tables with broken values and bytes: refused, or every row is read."""

import json
import math
import unicodedata
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from data.labels.table import read_labels
from tests import fuzzing
from tests.fuzzing import ACCEPTED

_GOOD = {
    "query": ["red shoe", "Red  Shoe", "東京", "tie", "x" * 300],
    "doc_id": ["d1", "d2", "d3", "\t", "é"],
    "level": [0, 1, 2, 3, 4, 5],
    "source": ["search_log", "shown", "query_level"],
    "score": [None, 0.0, 0.5, 1.0, -1.0],
    "evidence": [None, "[]", '[{"source": "search_log"}]', "{}", "0"],
}
_BAD = {
    "query": [None, "", " \u3000", "a\0"],
    "doc_id": [None, "", "  "],
    "level": [None, -1, 6, 127],
    "source": [None, ""],
    "score": [-1.1, 1.1, math.nan, math.inf],
    "evidence": ["", "{", "[", "nan,", "'a'"],
}
_TYPES = {"level": pa.int64(), "score": pa.float64()}


def labels_case(generator: Random, folder: Path) -> str:
    badness = generator.choice([0, 0, 0, 0.01, 0.1])
    rows = [
        {
            name: generator.choice((_BAD if generator.random() < badness else _GOOD)[name])
            for name in ("query", "doc_id", "level", "source", "score", "evidence")
        }
        for _ in range(generator.randint(1, 12))
    ]
    if generator.random() < 0.8:
        rows = list({(row["query"] and _normalised(row["query"]), row["doc_id"]): row for row in rows}.values())
    schema = pa.schema([pa.field(name, _TYPES.get(name, pa.string())) for name in _GOOD])
    table = pa.Table.from_pylist(rows, schema)
    if generator.random() < 0.2:
        table = table.set_column(2, "level", table.column("level").cast(generator.choice([pa.int8(), pa.float64()])))
    if generator.random() < 0.3:
        table = table.drop_columns(generator.choice(["score", "evidence"]))
    pq.write_table(table, folder / "labels.parquet", row_group_size=generator.choice([1, 5, 100]))
    damaged = generator.random() < 0.3
    if damaged:
        content = (folder / "labels.parquet").read_bytes()
        (folder / "labels.parquet").write_bytes(fuzzing.mutated_bytes(generator, content))
    found = read_labels(folder)
    if damaged:
        assert found.num_rows == pq.ParquetFile(folder / "labels.parquet").metadata.num_rows
        return ACCEPTED
    kept = set(table.column_names)
    assert all(_is_right(row, kept) for row in rows), "a bad row was taken"
    keys = [(_normalised(row["query"]), row["doc_id"]) for row in rows]
    assert len(set(keys)) == len(keys), "a repeated pair was taken"
    levels = {(row["query"], row["doc_id"]): row["level"] for row in found.to_pylist()}
    assert found.num_rows == len(keys)
    assert levels == dict(zip(keys, (row["level"] for row in rows), strict=True))
    return ACCEPTED


def _is_right(row: dict, kept: set[str]) -> bool:
    if any(row[name] is None for name in ("query", "doc_id", "level", "source")):
        return False
    evidence = row["evidence"] if "evidence" in kept else None
    score = row["score"] if "score" in kept else None
    return (
        row["query"].strip() != ""
        and "\0" not in row["query"]
        and row["doc_id"].strip(" ") != ""
        and row["source"].strip(" ") != ""
        and 0 <= row["level"] <= 5
        and (score is None or -1 <= score <= 1)
        and (evidence is None or _is_json(evidence))
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _normalised(query: str) -> str:
    visible = "".join(character for character in query if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).lower().split())


@fuzzing.sizes(labels_case)
def test_label_tables(number, tmp_path):
    fuzzing.run(labels_case, number, tmp_path, accepted=1 / 10, refused=1 / 10)
