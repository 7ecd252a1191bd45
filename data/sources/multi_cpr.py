"""Multi-CPR (SIGIR 2022), one of its domains (e-commerce, entertainment video, medical): Chinese passage retrieval.

Has: about a million passages, 100,000 training and 1,000 further queries, one relevant passage for each, a split.
Lacks: any log (searches, users, times, clicks, feed), titles, judged irrelevant passages.
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.
Untested on the real files: the adapter follows the published schema.

The dev file is the only one on which systems are compared, so it is the test split. A pair in both files keeps its test
judgement. Passages of e-commerce and video are really titles, but the source calls them passages: they become the text,
and titles are empty.
Files (of one domain's folder): corpus.tsv, train.query.txt, dev.query.txt, qrels.train.tsv, qrels.dev.tsv.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed
from data.conversion.values import unread


def _tsv(file: str, *columns: str) -> RawTable:
    return RawTable(files=(file, f"{file}.gz"), layout="tsv", columns=dict.fromkeys(columns, "VARCHAR"))


_RAW = {
    "corpus": _tsv("corpus.tsv", "pid", "passage"),
    "train_query": _tsv("train.query.txt", "qid", "query"),
    "dev_query": _tsv("dev.query.txt", "qid", "query"),
    "qrels_train": _tsv("qrels.train.tsv", "qid", "zero", "pid", "grade"),
    "qrels_dev": _tsv("qrels.dev.tsv", "qid", "zero", "pid", "grade"),
}
_JUDGED = """
    (SELECT pairs.*, query, 'test' AS split FROM qrels_dev AS pairs LEFT JOIN dev_query USING (qid)
    UNION ALL
    SELECT pairs.*, query, 'train' AS split FROM qrels_train AS pairs LEFT JOIN train_query USING (qid))
"""
_QUERIES = {
    "documents": "SELECT pid AS doc_id, '' AS title, passage AS text FROM corpus",
    "judgements": f"""
        SELECT query, pid AS doc_id, TRY_CAST(grade AS DOUBLE) AS grade, split,
            {unread("grade", "TRY_CAST(grade AS DOUBLE)")} AS "unread grade"
        FROM {_JUDGED} WHERE query IS NOT NULL ORDER BY split, qid, pid
    """,
}
_COUNTS = {("judgements", "query not in the query files"): f"SELECT count(*) FROM {_JUDGED} WHERE query IS NULL"}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, counts=_COUNTS)
