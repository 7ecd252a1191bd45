"""QBQTC, the QQ Browser Query Title Corpus (part of CLUE): Chinese web queries and titles, graded.

Has: about 200,000 pairs of a query and a page's title, graded 0 (poor), 1 (some), 2 (very relevant), a split by file.
Lacks: any log (searches, users, times, clicks, feed), page ids, texts beside titles.
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.
Tested on the real dev file.

Titles have no id: each distinct title is a document of its own, `title-` and a digest. Almost every query has one title
only, so it serves to fit and to measure a discriminator and not a ranking. A pair in several files keeps its test, then
its dev grade, so that nothing of the test split is trained on. One file by itself has no split: make one with
`data.hold_out`. Rows without one of the three grades, as in the contest's test file, are dropped and counted.
Files: any of train.json, dev.json, test_public.json or test.json (one object a line; .jsonl too).
"""

from pathlib import Path

from data.conversion.raw import raw_file
from data.conversion.streamed import RawTable, Streamed, raw_files

_SPLITS = {"test": ("test_public", "test"), "dev": ("dev",), "train": ("train",)}
_COLUMNS = {"query": "VARCHAR", "title": "VARCHAR", "label": "VARCHAR"}
_DOC_ID = "'title-' || left(sha256(title), 24)"


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files. Raises InputError without any file."""
    raw = {split: _json_lines(*names) for split, names in _SPLITS.items()}
    raw = {split: table for split, table in raw.items() if raw_files(folder, table)}
    if not raw:
        raw_file(folder, "train.json", "dev.json", "test.json")
    one = len(raw) == 1
    pairs = " UNION ALL ".join(
        f"SELECT query, title, label, {'NULL' if one else repr(split)} AS split, {place} AS file, row_number() OVER () "
        f"AS line FROM {split}"
        for place, split in enumerate(raw)
    )
    return Streamed(
        folder=folder,
        raw=raw,
        queries={
            "documents": f"""
                SELECT {_DOC_ID} AS doc_id, title FROM ({pairs})
                WHERE title IS NOT NULL GROUP BY title ORDER BY min(file), min(line), title
            """,
            "judgements": f"""
                SELECT query, {_DOC_ID} AS doc_id, TRY_CAST(label AS DOUBLE) AS grade, split
                FROM ({pairs}) WHERE label IN ('0', '1', '2') ORDER BY file, line
            """,
        },
        counts={
            ("judgements", "without a grade of 0, 1 or 2"): f"""
                SELECT count(*) FROM ({pairs}) WHERE label IS NULL OR label NOT IN ('0', '1', '2')
            """
        },
    )


def _json_lines(*names: str) -> RawTable:
    files = tuple(f"{name}.{ending}" for name in names for ending in ("json", "jsonl", "json.gz", "jsonl.gz"))
    return RawTable(files=files, layout="jsonl", columns=_COLUMNS, required=False, feeds="judgements")
