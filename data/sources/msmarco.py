"""MS MARCO passage ranking: 8.8 million passages, a million queries from Bing, about one relevant passage for each.

Has: passages, queries, judged pairs, a split by file.
Lacks: any log (searches, users, times, clicks, feed), titles, judged irrelevant passages.
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.
Untested on the real files: the adapter follows the published schema.

Systems are compared on qrels.dev.small, so it is the test split; the rest of qrels.dev is the dev split. A pair judged
in several splits keeps the judgement of test, else of dev. Titles are empty. Files are scanned, not loaded: 8.8 million
passages need a few GB of memory, or less if intermediate data goes to the temporary directory.
Files: collection.tsv, queries.train.tsv and qrels.train.tsv, and, where they are, queries.dev.tsv with qrels.dev.tsv
and queries.dev.small.tsv with qrels.dev.small.tsv; also gzipped.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed
from data.conversion.values import unread

_TRAIN, _DEV, _TEST = "train", "dev", "dev.small"


def _tsv(name: str, *columns: str, required: bool = False) -> RawTable:
    return RawTable(
        files=(f"{name}.tsv", f"{name}.tsv.gz"),
        layout="tsv",
        columns=dict.fromkeys(columns, "VARCHAR"),
        required=required,
    )


_RAW = {"collection": _tsv("collection", "pid", "passage", required=True)} | {
    f"{kind} {split}": _tsv(f"{kind}.{split}", *columns, required=split == _TRAIN)
    for split in (_TRAIN, _DEV, _TEST)
    for kind, columns in (("queries", ("qid", "query")), ("qrels", ("qid", "zero", "pid", "grade")))
}
_PAIRS = " UNION ALL ".join(
    f"SELECT qid, pid, grade, '{split}' AS split, {order} AS place FROM \"qrels {name}\""
    for order, (name, split) in enumerate(((_TEST, "test"), (_DEV, "dev"), (_TRAIN, "train")))
)
_TEXTS = " UNION ALL ".join(f'SELECT * FROM "queries {name}"' for name in (_TEST, _DEV, _TRAIN))
_JUDGED = f"({_PAIRS}) AS pairs LEFT JOIN (SELECT qid, min(query) AS query FROM ({_TEXTS}) GROUP BY qid) USING (qid)"
_QUERIES = {
    "documents": "SELECT pid AS doc_id, '' AS title, passage AS text FROM collection",
    "judgements": f"""
        SELECT query, pid AS doc_id, TRY_CAST(grade AS DOUBLE) AS grade, split,
            {unread("grade", "TRY_CAST(grade AS DOUBLE)")} AS "unread grade"
        FROM {_JUDGED} WHERE query IS NOT NULL ORDER BY place, qid, pid
    """,
}
_COUNTS = {("judgements", "query not in queries"): f"SELECT count(*) FROM {_JUDGED} WHERE query IS NULL"}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, counts=_COUNTS)
