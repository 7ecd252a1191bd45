"""KuaiSAR (CIKM 2023): searches and recommendations of the same Kuaishou users, words and captions anonymised.

Has: user, search session with query and time, the items shown with clicks; the recommendation feed with time, playing
time and likes; captions and upload dates of items.
Lacks: readable text (words are numbers), positions, the stages before showing, watch time of searches, judgements.
It feeds the search log, the query level and the system level; a lexical discriminator works on the numbered words,
a pretrained language model does not.
Untested on the real files: the adapter follows the published schema.

A search is one (user_id, search_session_id). `[20, 34, 3]` becomes the text "20 34 3". Every row of rec_inter.csv is a
view (click = 0 too; how long it was watched decides), playing_time is milliseconds. Times are the millisecond stamps;
upload_time is Beijing time; 1970-1-1 means that the date is missing, and other dates that cannot be
read are left empty and counted. Live streams, users and other results of the
search without a row in item_features.csv are dropped and counted. Files are scanned, not loaded: the temporary
directory must be large, but memory need not be.
Files: src_inter.csv, rec_inter.csv, item_features.csv.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed

_RAW = {
    "src_inter": RawTable(
        files=("src_inter.csv", "src_inter.csv.gz"),
        layout="csv",
        columns={
            "user_id": "VARCHAR",
            "search_session_id": "VARCHAR",
            "search_session_timestamp": "DOUBLE",
            "keyword": "VARCHAR",
            "item_id": "VARCHAR",
            "click_cnt": "DOUBLE",
        },
        feeds="candidates",
    ),
    "rec_inter": RawTable(
        files=("rec_inter.csv", "rec_inter.csv.gz"),
        layout="csv",
        columns={
            "user_id": "VARCHAR",
            "item_id": "VARCHAR",
            "playing_time": "DOUBLE",
            "timestamp": "DOUBLE",
            "like": "DOUBLE",
        },
        feeds="feed_views",
    ),
    "item_features": RawTable(
        files=("item_features.csv", "item_features.csv.gz"),
        layout="csv",
        columns={"item_id": "VARCHAR", "caption": "VARCHAR"},
        optional={"upload_time": "VARCHAR"},
    ),
}
_WORDS = "trim(regexp_replace({}, '[^0-9]+', ' ', 'g'))"
_TIME = "make_timestamptz(CAST({} * 1e3 AS BIGINT))"
_QUERIES = {
    "documents": f"""
        SELECT item_id AS doc_id, {_WORDS.format("coalesce(caption, '')")} AS title,
            CASE WHEN TRY_CAST(upload_time AS TIMESTAMP) >= TIMESTAMP '1971-01-01'
                THEN timezone('UTC', TRY_CAST(upload_time AS TIMESTAMP) - INTERVAL 8 HOUR) END AS published_at
        FROM item_features
    """,
    "searches": f"""
        SELECT user_id || '-' || search_session_id AS search_id, user_id, {_WORDS.format("min(keyword)")} AS query,
            {_TIME.format("min(search_session_timestamp)")} AS time
        FROM src_inter GROUP BY user_id, search_session_id ORDER BY search_id
    """,
    "candidates": """
        SELECT user_id || '-' || search_session_id AS search_id, item_id AS doc_id, 'shown' AS stage,
            max(click_cnt) > 0 AS clicked
        FROM src_inter GROUP BY user_id, search_session_id, item_id ORDER BY search_id, doc_id
    """,
    "feed_views": f"""
        SELECT user_id, item_id AS doc_id, {_TIME.format("timestamp")} AS time, playing_time / 1e3 AS watch_seconds,
            "like" > 0 AS liked
        FROM rec_inter
    """,
}
_LEFT_EMPTY = {
    ("documents", "published_at: value is no time"): """
        SELECT count(*) FROM item_features WHERE trim(upload_time) <> '' AND TRY_CAST(upload_time AS TIMESTAMP) IS NULL
    """
}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, left_empty=_LEFT_EMPTY)
