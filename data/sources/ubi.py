"""OpenSearch User Behavior Insights (UBI) 1.3: the open schema of query and event logs, exported as JSON lines.

Has: queries with client, time and the ids of the hits; events, of which impressions and clicks on objects are read.
Lacks: documents (bring documents.jsonl; without it, the names and descriptions that events carry are used), stages
before ranking, watch time, a feed.
It feeds the search log and the query level (the same client's next query).
Untested on the real files: the adapter follows the published schema.

A search is a query_id; its user is the client_id, or the session_id if that is missing. Hits are the response's
query_response_object_ids, or query_response_hit_ids if it lacks these. They are shown; but if the query has
impressions, a hit without one is ranked and not shown. Objects that were seen or clicked but are not among the hits are
shown. The position is the rank among the hits. Clicks are the actions named click or ending in _click, and
click_through; impressions likewise. Timestamps are RFC 3339, or seconds, milliseconds, microseconds or nanoseconds,
which their size tells; UBI is younger than 2000, so an earlier time is wrong. A query_id that is logged again (a
further page, a retry) keeps its first row's text and time, and all hits. Both files are one document a line: the
source, bare or wrapped in _source as export tools write it.
Files: ubi_queries.jsonl, ubi_events.jsonl (.ndjson and .gz too), and, where it is, documents.jsonl with doc_id, title
and text, in which doc_id is what the hits and event_attributes.object.object_id hold.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed
from data.conversion.values import since_2000, time, unread


def _names(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}.{ending}" for ending in ("jsonl", "jsonl.gz", "ndjson", "ndjson.gz"))


_RAW = {
    "ubi_queries": RawTable(
        files=_names("ubi_queries"),
        layout="jsonl",
        columns={
            "query_id": "VARCHAR",
            "user_query": "VARCHAR",
            "timestamp": "VARCHAR",
            "query_response_object_ids|query_response_hit_ids": "VARCHAR[]",
        },
        optional={"client_id": "VARCHAR", "session_id": "VARCHAR"},
        feeds="searches",
    ),
    "ubi_events": RawTable(
        files=_names("ubi_events"),
        layout="jsonl",
        columns={"action_name": "VARCHAR"},
        optional={"query_id": "VARCHAR"}
        | {f"event_attributes.object.{key}": "VARCHAR" for key in ("object_id", "name", "description")},
        feeds="candidates",
    ),
    "objects": RawTable(
        files=_names("documents"),
        layout="jsonl",
        columns={"doc_id": "VARCHAR", "title": "VARCHAR"},
        optional={"text": "VARCHAR"},
        required=False,
    ),
}
_TIME = since_2000(time('"timestamp"'))
_USER = "CASE WHEN trim(client_id) <> '' THEN client_id ELSE session_id END"
_LOGGED = "SELECT *, row_number() OVER () AS place FROM ubi_queries"
_ACTIONS = """
    SELECT query_id, "event_attributes.object.object_id" AS doc_id, "event_attributes.object.name" AS title,
        "event_attributes.object.description" AS text,
        regexp_full_match(lower(action_name), '(.*_)?click(_?through)?') AS clicked,
        regexp_full_match(lower(action_name), '(.*_)?impression') AS seen
    FROM ubi_events
"""
_EVENTS = f"SELECT * FROM ({_ACTIONS}) WHERE doc_id IS NOT NULL"
_HITS = """
    SELECT query_id, doc_id, CAST(min(position) AS INTEGER) AS position FROM (
        SELECT query_id, unnest(query_response_object_ids) AS doc_id,
            unnest(range(1, len(query_response_object_ids) + 1)) AS position FROM ubi_queries
    ) GROUP BY query_id, doc_id
"""
_TOUCHED = f"""
    SELECT query_id, doc_id, bool_or(clicked) AS clicked FROM ({_EVENTS})
    WHERE query_id IS NOT NULL AND (clicked OR seen) GROUP BY query_id, doc_id
"""
_QUERIES = {
    "documents": f"""
        SELECT doc_id, title, text FROM objects
        UNION ALL (
            SELECT doc_id, min(title) AS title, min(text) AS text FROM ({_EVENTS})
            WHERE title IS NOT NULL AND doc_id NOT IN (SELECT doc_id FROM objects WHERE doc_id IS NOT NULL)
            GROUP BY doc_id ORDER BY doc_id
        )
    """,
    "searches": f"""
        SELECT query_id AS search_id, arg_min({_USER}, place) AS user_id,
            arg_min(user_query, place) AS query, arg_min({_TIME}, place) AS time,
            CASE WHEN min_by({_TIME}, place) IS NULL THEN arg_min({unread('"timestamp"', _TIME)}, place) END
            AS "unread time"
        FROM ({_LOGGED}) GROUP BY query_id ORDER BY min(place)
    """,
    "candidates": f"""
        SELECT query_id AS search_id, doc_id, stage,
            CASE WHEN stage = 'shown' THEN position END AS position, clicked
        FROM (
            SELECT query_id, doc_id, position, coalesce(touched.clicked, false) AS clicked,
                CASE WHEN touched.touched_id IS NULL AND query_id IN (
                    SELECT query_id FROM ({_EVENTS}) WHERE seen AND query_id IS NOT NULL
                ) THEN 'ranked_not_shown' ELSE 'shown' END AS stage
            FROM ({_HITS}) AS hits FULL JOIN (
                SELECT *, doc_id AS touched_id FROM ({_TOUCHED})
            ) AS touched USING (query_id, doc_id)
        ) ORDER BY query_id, position NULLS LAST, doc_id
    """,
}
_COUNTS = {
    ("candidates", "clicks and impressions without a query_id"): f"""
        SELECT count(*) FROM ({_EVENTS}) WHERE query_id IS NULL AND (clicked OR seen)
    """,
    ("candidates", "clicks and impressions without an object_id"): f"""
        SELECT count(*) FROM ({_ACTIONS}) WHERE doc_id IS NULL AND (clicked OR seen)
    """,
}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, counts=_COUNTS)
