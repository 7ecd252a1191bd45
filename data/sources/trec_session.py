"""TREC 2012 Session Track: sessions of a web search engine's users, with result lists, clicks and assessed pages.

Has: the queries of a session in order, the results shown for each, clicks with reading time, graded judgements of
every topic. Lacks: calendar time, users across sessions, the stages before showing, a feed, the pages' texts.
It feeds the search log (clicks, and shown but not clicked) and the query level (the session's later queries).

user_id is the session, group the topic (98 sessions share 48 topics), time a fixed epoch + start_s. A session's
last, current query is a search without candidates. watch_seconds is end_s - start_s, summed over the clicks on one
result. A document is a page of the result lists: its title, and as text the snippet of its first impression (a
snippet is cut for the query it was shown for). A repeated result of one list keeps its first position.

Judgements of a topic belong to its current queries; where two topics share a query (once normalised) the higher grade
counts; negative grades (spam, junk) become 0, so the scale is 0 to 4. Many judged pages were never shown: they have no
text and are no documents here. Files: queries.parquet, impressions.parquet, clicks.parquet, qrels.parquet.
"""

from pathlib import Path

from data.conversion.raw import Conversion, query_parquet

EPOCH = "2012-01-01 00:00:00+00"
JUDGED_BY_GROUP = True
"""Assessors judged for a topic, so that data.mine measures its sources over all queries of the topic."""

_COLUMNS = {
    "queries": ("session_id", "topic_id", "query_index", "query_text", "start_s", "is_current"),
    "impressions": ("session_id", "query_index", "rank", "doc_id", "title", "snippet"),
    "clicks": ("session_id", "query_index", "doc_id", "start_s", "end_s"),
    "qrels": ("topic_id", "doc_id", "grade"),
}
_QUERIES = {
    "documents": """
        SELECT doc_id, arg_min(title, row) AS title, arg_min(snippet, row) AS text
        FROM impressions GROUP BY doc_id ORDER BY min(row)
    """,
    "searches": f"""
        SELECT session_id || '-' || query_index AS search_id, CAST(session_id AS VARCHAR) AS user_id,
            query_text AS query, TIMESTAMPTZ '{EPOCH}' + to_microseconds(round(start_s * 1e6)::BIGINT) AS time,
            CAST(topic_id AS VARCHAR) AS "group"
        FROM queries ORDER BY row
    """,
    "candidates": """
        SELECT session_id || '-' || query_index AS search_id, doc_id, 'shown' AS stage, rank AS position,
            watch_seconds IS NOT NULL AS clicked, watch_seconds
        FROM impressions LEFT JOIN (
            SELECT session_id, query_index, doc_id, sum(end_s - start_s) AS watch_seconds FROM clicks GROUP BY ALL
        ) AS clicked USING (session_id, query_index, doc_id)
        ORDER BY session_id, query_index, rank
    """,
    "judgements": """
        SELECT normalise_query(query_text) AS query, doc_id, max(greatest(grade, 0)) AS grade
        FROM queries JOIN qrels USING (topic_id)
        WHERE is_current
        GROUP BY ALL ORDER BY min(queries.row), min(qrels.row)
    """,
    "unmatched": """
        SELECT count(*) AS clicks FROM clicks ANTI JOIN impressions USING (session_id, query_index, doc_id)
    """,
}


def convert(folder: Path) -> Conversion:
    """Returns the log tables of the source's folder. Raises InputError for a missing file or column."""
    tables = query_parquet(folder, _COLUMNS, _QUERIES)
    unmatched = tables.pop("unmatched").column("clicks")[0].as_py()
    dropped = {"candidates": {"clicks on a result that was not shown": unmatched}} if unmatched else {}
    return Conversion(tables=tables, dropped=dropped)
