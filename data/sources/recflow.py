"""RecFlow (ICLR 2025): recommendation requests of Kuaishou with what every stage of the funnel did to each video.

Has: user, request and its time, the videos at each stage, which were shown, watched, liked; numbers for everything.
Lacks: queries, text, and so any search.
It feeds the search log with all three stages of negatives, but as recommendation: the "query" of a request is the
user's own numbered features as words ("user_17 age_3 ..."), the title of a video likewise, for towers over hashed ids.
The query level and the system level have no meaning here, and no feed is written, since the requests are the feed.
Untested on the real files: the adapter follows the published schema.

realshow is shown; rerank_pos, rerank_neg, rank_pos and rank_neg are ranked but not shown; coarse_neg and prerank_neg
were filtered before ranking. effective_view (at least 30 % watched) is the click; playing_time is milliseconds. A
video's numbers are those of its first day. request_timestamp above 10^11 is milliseconds, otherwise seconds. Positions
are left out: rerank_index counts within a stage, not on the screen. Files are scanned, not loaded. DuckDB searches the
repeated keys of the full data set on disk; the temporary directory needs several times the size of the files.
Files: all_stage/*.feather (or *.parquet).
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed

_FLAGS: tuple[str, ...] = (
    "realshow",
    "rerank_pos",
    "rerank_neg",
    "rank_pos",
    "rank_neg",
    "coarse_neg",
    "prerank_neg",
    "effective_view",
    "like",
)
_USER: tuple[str, ...] = ("user_id", "age", "gender", "province")
_VIDEO: tuple[str, ...] = ("video_id", "author_id", "category_level_one", "category_level_two", "upload_type")
_TEXTS: tuple[str, ...] = ("request_id", *_USER, *_VIDEO)
_NUMBERS: tuple[str, ...] = ("request_timestamp", "upload_timestamp", "playing_time")
_COLUMNS: dict[str, str] = {
    **dict.fromkeys(_TEXTS, "VARCHAR"),
    **dict.fromkeys(_NUMBERS, "DOUBLE"),
    **dict.fromkeys(_FLAGS, "INTEGER"),
}
_TIME = "make_timestamptz(CAST(CASE WHEN {0} > 1e11 THEN {0} * 1e3 ELSE {0} * 1e6 END AS BIGINT))"


def _words(columns: tuple[str, ...], value: str) -> str:
    return " || ' ' || ".join(f"'{name.removesuffix('_id')}_' || {value.format(name)}" for name in columns)


_QUERIES = {
    "documents": f"""
        SELECT video_id AS doc_id, {_words(_VIDEO, "coalesce(arg_min({}, request_timestamp), 'unknown')")} AS title,
            {_TIME.format("min(upload_timestamp)")} AS published_at
        FROM all_stage GROUP BY video_id ORDER BY video_id
    """,
    "searches": f"""
        SELECT request_id AS search_id, min(user_id) AS user_id,
            {_words(_USER, "coalesce(min({}), 'unknown')")} AS query,
            {_TIME.format("min(request_timestamp)")} AS time
        FROM all_stage GROUP BY request_id ORDER BY request_id
    """,
    "candidates": """
        SELECT request_id AS search_id, video_id AS doc_id,
            CASE
                WHEN max(realshow) > 0 THEN 'shown'
                WHEN max(greatest(rerank_pos, rerank_neg, rank_pos, rank_neg)) > 0 THEN 'ranked_not_shown'
                WHEN max(greatest(coarse_neg, prerank_neg)) > 0 THEN 'filtered_before_ranking'
                ELSE 'no stage'
            END AS stage,
            max(realshow * effective_view) > 0 AS clicked, max(realshow * "like") > 0 AS liked,
            CASE WHEN max(realshow) > 0 THEN max(playing_time) / 1e3 END AS watch_seconds
        FROM all_stage GROUP BY request_id, video_id ORDER BY request_id, video_id
    """,
}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    layout = "parquet" if any(folder.glob("all_stage/*.parquet")) else "feather"
    raw = {"all_stage": RawTable(files=(f"all_stage/*.{layout}",), layout=layout, columns=_COLUMNS)}
    return Streamed(folder=folder, raw=raw, queries=_QUERIES)
