"""Qilin (THUIR, SIGIR 2025): searches and recommendations of Xiaohongshu users, in Chinese, over notes with text.

Has: user, session, query, the notes shown with position, click, like and reading time; the recommendation feed of the
same users; titles and contents of the notes.
Lacks: the stages before showing, graded judgements by people.
It feeds the search log, the query level and the system level.
Untested on the real files: the adapter follows the published schema.

A search is a row of search_train or search_test; its time is the earliest of its results. Recommended notes are views
of the feed where they were clicked; page_time is taken as seconds. Times above 10^11 are milliseconds, others seconds.
Positions that count from 0 are counted from 1. Images, user features, retrieval lists and dqa are not read.
Files, as the configurations of the data set's repository: notes/*.parquet, search_train/*.parquet,
search_test/*.parquet (may lack), recommendation_train/*.parquet and recommendation_test/*.parquet (may lack).
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed

_RESULT = 'STRUCT(note_idx VARCHAR, position INTEGER, click DOUBLE, "like" DOUBLE, page_time DOUBLE, {time} DOUBLE)[]'


def _requests(kind: str, result: str, time: str, key: str, *, required: bool) -> RawTable:
    return RawTable(
        files=(f"{kind}/*.parquet", f"{kind}*.parquet"),
        layout="parquet",
        columns={key: "VARCHAR", "user_idx": "VARCHAR", result: _RESULT.format(time=time)}
        | ({"query": "VARCHAR"} if key == "search_idx" else {}),
        required=required,
    )


_SEARCH = ("search_result_details_with_idx", "search_timestamp", "search_idx")
_FEED = ("rec_result_details_with_idx", "request_timestamp", "request_idx")
_RAW = {
    "notes": RawTable(
        files=("notes/*.parquet", "notes*.parquet"),
        layout="parquet",
        columns={"note_idx": "VARCHAR", "note_title": "VARCHAR", "note_content": "VARCHAR"},
    ),
    "search_train": _requests("search_train", *_SEARCH, required=True),
    "search_test": _requests("search_test", *_SEARCH, required=False),
    "recommendation_train": _requests("recommendation_train", *_FEED, required=False),
    "recommendation_test": _requests("recommendation_test", *_FEED, required=False),
}
_TIME = "make_timestamptz(CAST(CASE WHEN {0} > 1e11 THEN {0} * 1e3 ELSE {0} * 1e6 END AS BIGINT))"
_ALL_SEARCHES = "SELECT * FROM search_train UNION ALL SELECT * FROM search_test"
_SHOWN = f"SELECT search_idx, unnest(search_result_details_with_idx) AS shown FROM ({_ALL_SEARCHES})"
_FED = """
    SELECT user_idx, unnest(rec_result_details_with_idx) AS shown
    FROM (SELECT * FROM recommendation_train UNION ALL SELECT * FROM recommendation_test)
"""
_QUERIES = {
    "documents": "SELECT note_idx AS doc_id, coalesce(note_title, '') AS title, note_content AS text FROM notes",
    "searches": f"""
        SELECT search_idx AS search_id, user_idx AS user_id, query, {_TIME.format("seconds")} AS time
        FROM (
            SELECT *, list_min([result.search_timestamp FOR result IN search_result_details_with_idx]) AS seconds
            FROM ({_ALL_SEARCHES})
        )
    """,
    "candidates": f"""
        SELECT search_idx AS search_id, shown.note_idx AS doc_id, 'shown' AS stage,
            shown.position + (SELECT CAST(min(shown.position) = 0 AS INTEGER) FROM ({_SHOWN})) AS position,
            shown.click > 0 AS clicked, shown."like" > 0 AS liked,
            CASE WHEN shown.click > 0 THEN shown.page_time END AS watch_seconds
        FROM ({_SHOWN})
    """,
    "feed_views": f"""
        SELECT user_idx AS user_id, shown.note_idx AS doc_id, {_TIME.format("shown.request_timestamp")} AS time,
            shown.page_time AS watch_seconds, shown."like" > 0 AS liked
        FROM ({_FED}) WHERE shown.click > 0
    """,
}
_COUNTS = {
    ("feed_views", "recommended but not clicked"): f"""
        SELECT count(*) FROM ({_FED}) WHERE coalesce(shown.click, 0) <= 0
    """
}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, counts=_COUNTS)
