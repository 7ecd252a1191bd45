"""Any data set in BEIR layout, such as SciFact: a corpus, queries, and qrels in splits.

Has: documents with title and text, queries, judged pairs, a split by file.
Lacks: any log (searches, users, times, clicks, feed).
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.

The score is the grade; negative scores become 0. A pair that is judged in several splits keeps the judgement of test,
else of dev, so that no pair of the test split is used for training. Queries without judgements are left out.
Lines that are no JSON object and documents without an _id are dropped and counted; a title or a text can be missing.
Files: corpus.jsonl or corpus.jsonl.gz, queries.jsonl or queries.jsonl.gz, and at least one of qrels/train.tsv,
qrels/dev.tsv, qrels/test.tsv (a header line, then query-id, corpus-id, score).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.conversion.json_lines import json_objects
from data.conversion.raw import Conversion, raw_file

_BATCH = 50_000
_SPLITS = ("test", "dev", "train")


def convert(folder: Path) -> Conversion:
    """Returns the log tables of the source's folder. Raises InputError, which names file and line."""
    dropped: dict[str, dict[str, int]] = {}
    documents = _documents(raw_file(folder, "corpus.jsonl", "corpus.jsonl.gz"), dropped)
    lines = _json_lines(raw_file(folder, "queries.jsonl", "queries.jsonl.gz"), dropped.setdefault("judgements", {}))
    queries = {_text(record, "_id", place): _text(record, "text", place) or "" for place, record in lines}
    files = [(split, folder / "qrels" / f"{split}.tsv") for split in _SPLITS]
    if not any(file.is_file() for _, file in files):
        raise InputError(f"{folder}: no qrels/train.tsv, qrels/dev.tsv or qrels/test.tsv in it; check --input")
    rows, unknown = [], 0
    for split, file in files:
        for query_id, doc_id, score in _qrels(file) if file.is_file() else ():
            if query_id in queries:
                rows.append((normalise_query(queries[query_id]), doc_id, max(score, 0.0), split))
            else:
                unknown += 1
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    judgements = pa.table(dict(zip(("query", "doc_id", "grade", "split"), map(list, columns), strict=True)))
    if unknown:
        dropped["judgements"]["query not in queries.jsonl"] = unknown
    dropped = {name: counts for name, counts in dropped.items() if counts}
    return Conversion(tables={"documents": documents, "judgements": judgements}, dropped=dropped)


def _documents(file: Path, dropped: dict[str, dict[str, int]]) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in ("doc_id", "title", "text")])
    batches, rows = [], []
    for place, record in _json_lines(file, dropped.setdefault("documents", {})):
        fields = {"doc_id": "_id", "title": "title", "text": "text"}
        row = {name: _text(record, field, place) for name, field in fields.items()}
        rows.append(row | {"title": row["title"] or ""})
        if len(rows) == _BATCH:
            batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
            rows = []
    return pa.Table.from_batches([*batches, pa.RecordBatch.from_pylist(rows, schema=schema)], schema=schema)


def _json_lines(file: Path, dropped: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (file and line for messages, object) of every line that is an object, and counts the others in `dropped`.

    Raises InputError if the file is damaged or no line is an object.
    """
    left_out: dict[int, str] = {}
    found = False
    for number, record in json_objects(file, left_out):
        found = True
        yield f"{file}, line {number}", record
    if left_out:
        line, reason = next(iter(left_out.items()))
        if not found:
            raise InputError(f"{file}, line {line}: not a JSON object ({reason}); correct it, or get it again")
        dropped[f"no JSON object (first: {file.name}, line {line})"] = len(left_out)


def _text(record: dict[str, Any], field: str, place: str) -> str | None:
    """Returns a field as text; None if it is null, which writers of JSON Lines leave out."""
    value = record.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{place}: field {field} is {value!r}, not text; correct it")
    return value


def _qrels(file: Path) -> Iterator[tuple[str, str, float]]:
    number = 0
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    if line.split() != ["query-id", "corpus-id", "score"]:
                        raise ValueError(f"the header is {line.strip()[:80]!r}")
                elif line.strip():
                    query_id, doc_id, score = line.rstrip("\r\n").split("\t")
                    yield query_id, doc_id, float(score)
    except ValueError as error:
        raise InputError(
            f"{file}, line {number}: not query-id, corpus-id, score between tabs ({error}); correct it"
        ) from error
