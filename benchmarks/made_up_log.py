"""Writes a made-up search log of any size. DuckDB writes each table in one pass, without holding it in memory.

A user has sessions of one to four searches of one topic, 20 to 110 seconds apart. Queries and documents are Zipf-like
within their topic. Every search has a funnel of filtered, ranked and shown documents. The feed shows documents of the
user's topics, half of them around the user's sessions. The same seed and size result in the same rows.
"""

from pathlib import Path

import duckdb

EVENT_SHARES = {"searches": 0.08, "candidates": 0.72, "feed_views": 0.20}
"""The share of each table in the events of the log."""

_CANDIDATES_PER_SEARCH = 9
_SEARCHES_PER_SESSION = 2.5
_SESSIONS_PER_USER = 8
_EVENTS_PER_DOCUMENT = 100
_DOCUMENTS_PER_TOPIC = 100
_QUERIES_PER_TOPIC = 200
_WORDS_PER_TOPIC = 12
_DAYS = 30


def write_log(directory: Path, *, events: int, seed: int = 0, memory_limit: str = "2GB") -> dict[str, int]:
    """Writes documents, searches, candidates and feed_views.

    Args:
      directory: the directory of the log, which is created.
      events: the approximate number of rows of searches, candidates and feed views together, at least 10,000.
      seed: the seed of all random choices.
      memory_limit: the memory limit of DuckDB.

    Returns:
      The number of rows of each table.
    """
    directory.mkdir(parents=True)
    sessions = int(events * EVENT_SHARES["searches"] / _SEARCHES_PER_SESSION)
    sizes = {
        "seed": seed,
        "sessions": sessions,
        "users": max(sessions // _SESSIONS_PER_USER, 10),
        "topics": max(events // (_EVENTS_PER_DOCUMENT * _DOCUMENTS_PER_TOPIC), 1),
        "documents": _DOCUMENTS_PER_TOPIC,
        "queries": _QUERIES_PER_TOPIC,
        "views": int(events * EVENT_SHARES["feed_views"]),
        "candidates": _CANDIDATES_PER_SEARCH,
        "days": _DAYS,
        "words": _WORDS_PER_TOPIC,
    }
    rows = {}
    with duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": str(directory / ".spill")}) as database:
        database.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET preserve_insertion_order = false")
        for macro in _MACROS:
            database.execute(macro.format(**sizes))
        for table, select in _TABLES.items():
            file = directory / f"{table}.parquet"
            rows[table] = database.execute(
                f"COPY ({select.format(**sizes)}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchall()[0][0]
    return rows


_MACROS = (
    # A uniform number in [0, 1): the hash of a purpose, two numbers and the seed.
    "CREATE MACRO uniform(purpose, a, b) AS (hash(purpose, a, b, {seed}) >> 11) / 9007199254740992.0",
    "CREATE MACRO pick(purpose, a, b, n) AS CAST(floor(uniform(purpose, a, b) * n) AS BIGINT)",
    # A power of a uniform number, so that few numbers are chosen often.
    "CREATE MACRO popular(purpose, a, b, n) AS CAST(floor(uniform(purpose, a, b) ** 3 * n) AS BIGINT)",
    "CREATE MACRO syllable(n) AS substr('bcdfghklmnprstvz', 1 + n % 16, 1) || substr('aeiou', 1 + (n // 16) % 5, 1)",
    "CREATE MACRO spelt(n) AS syllable(n) || syllable(n // 80) || syllable(n // 6400 + n % 7)",
    "CREATE MACRO word(topic, number) AS spelt(pick('word', topic, number, 200000))",
    # The numbers of the topic's words in a query and in a title.
    "CREATE MACRO query_words(n) AS [n % {words}, (n // 3 + 1) % {words}, (n // 5 + 2) % {words}]",
    "CREATE MACRO title_words(n) AS [n % {words}, (n * 5 + 1) % {words}, (n * 7 + 2) % {words}]",
    "CREATE MACRO spell_out(topic, numbers) AS array_to_string(list_transform(numbers, lambda p: word(topic, p)), ' ')",
    "CREATE MACRO query_text(topic, n) AS spell_out(topic, query_words(n))",
    # A click is more likely if query and title share more words.
    "CREATE MACRO appeal(query, doc) AS [0.02, 0.15, 0.5, 0.7][1 + len(list_intersect(query_words(query), "
    "title_words(doc)))]",
    "CREATE MACRO doc_id(topic, n) AS 'd' || (topic * {documents} + n)",
    "CREATE MACRO moment(seconds) AS TIMESTAMPTZ '2024-05-01 00:00:00+00' + to_microseconds(CAST(seconds * 1e6 AS "
    "BIGINT))",
    # The user, the topic and the start of a session; each has its own random number.
    "CREATE MACRO user_of(session) AS CAST(floor(uniform('user', session, 0) ** 1.5 * {users}) AS BIGINT)",
    "CREATE MACRO topic_of(session) AS popular('topic', user_of(session), pick('which', session, 0, 3), {topics})",
    "CREATE MACRO start_of(session) AS uniform('start', session, 0) * {days} * 86400",
)

_SEARCHES = """
    SELECT session, n AS position_in_session, session * 4 + n AS number, topic_of(session) AS topic,
      start_of(session) + n * (20 + 70 * uniform('gap', session, n)) AS seconds,
      popular('query', session, 0, {queries}) AS first_query,
      CASE WHEN n = 0 OR uniform('other', session, n) < 0.4 THEN popular('query', session, n, {queries})
      -- The first word is the first word of the session's first query.
      ELSE (first_query + {words} * (1 + pick('rephrased', session, n, 4))) % {queries} END AS own_query
    FROM range({sessions}) AS s(session), range(4) AS t(n) WHERE n <= pick('length', session, 0, 4)
"""

_TABLES = {
    "documents": """
        SELECT doc_id(topic, n) AS doc_id,
          spell_out(topic, title_words(n)) || ' ' || spelt(pick('name', topic, n, 200000)) AS title,
          array_to_string([word(topic, pick('text', topic * 1000 + n, i, 3 * {words})) FOR i IN range(20)], ' ') AS text
        FROM range({topics}) AS s(topic), range({documents}) AS t(n)
    """,
    "searches": f"""
        SELECT 's' || number AS search_id, 'u' || user_of(session) AS user_id,
          CASE WHEN number % 10 = 0 THEN upper(query_text(topic, own_query)) || '  '
          ELSE query_text(topic, own_query) END AS query, moment(seconds) AS time
        FROM ({_SEARCHES})
    """,
    "candidates": f"""
        SELECT 's' || number AS search_id, doc_id(topic, doc) AS doc_id,
          CASE WHEN rank < 4 THEN 'shown' WHEN rank < 7 THEN 'ranked_not_shown' ELSE 'filtered_before_ranking' END
          AS stage,
          CASE WHEN rank < 4 THEN CAST(rank + 1 AS INTEGER) END AS position,
          CASE WHEN rank < 4 THEN attraction > 0 END AS clicked,
          CASE WHEN rank < 4 AND attraction > 0 THEN round(120 * uniform('watch', number, rank) ** 2, 1) END
          AS watch_seconds
        FROM (SELECT number, topic, c.rank,
            (popular('from', number, own_query, {{documents}}) + c.rank * 7) % {{documents}} AS doc,
            appeal(own_query, doc) / (1 + 0.3 * c.rank) - uniform('click', number, c.rank) AS attraction
          FROM ({_SEARCHES}), range({{candidates}}) AS c(rank))
    """,
    "feed_views": """
        SELECT 'u' || user_of(session) AS user_id,
          doc_id(topic_of(session), popular('viewed', view, 0, {documents})) AS doc_id,
          moment(greatest(start_of(session) + CASE WHEN view % 2 = 0 THEN 3600 * (uniform('near', view, 0) - 0.5)
          ELSE 86400 * uniform('far', view, 0) END, 0)) AS time,
          round(90 * uniform('watched', view, 0) ** 2, 1) AS watch_seconds
        FROM (SELECT view, pick('around', view, 0, {sessions}) AS session FROM range({views}) AS v(view))
    """,
}
