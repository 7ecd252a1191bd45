"""The tables in which data.report counts. DuckDB makes them from a label table and its logs, outside Python's memory.

finds   source, query, doc_id, gap_seconds (minimum), supporters (maximum), score (maximum): one row for each positive
        of a perspective.
ways    the same columns before grouping, and via_query: one row for each entry of evidence. told is false if the
        evidence does not name the source of the label's row; that source is then used.
pairs   query, doc_id, perspectives (their number), place: one row for each positive of any perspective. place is the
        furthest stage that the document reached for that query in the log (an index of PLACES).
asked   query, searches, clicked, part: one row for each query of the log (clicked is null without candidates).
"""

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import duckdb
import ibis

from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.program.progress import ProgressLine
from data.backends.connection import DuckDBConnection
from data.labels.table import open_labels
from data.perspectives.log_events import LogEvents, read_events
from data.tables import OnBadRows, open_logs
from data.tables.duckdb_session import duckdb_size, named_lack_of_room
from data.tables.files import add_view
from data.tables.knowledge_documents import open_written_documents

PLACES = ("clicked", "shown", "ranked_not_shown", "filtered_before_ranking", "never_a_candidate")
"""The stages that a document can reach for a query in any search; clicked includes liked and watched long."""

_MOST_SOURCES = 50
_ENTRY = (
    '[{"source": "VARCHAR", "level": "TINYINT", "score": "DOUBLE", "via_query": "VARCHAR", "gap_seconds": "DOUBLE", '
    '"supporters": "BIGINT"}]'
)


@dataclass(frozen=True, kw_only=True)
class ReportTables:
    """A connection that holds the tables above, labels and the log tables; the names of the log tables that exist."""

    connection: duckdb.DuckDBPyConnection
    names: frozenset[str]
    label_rows: int

    @property
    def candidates(self) -> bool:
        """Whether the log records the candidates of each query."""
        return "candidates" in self.names

    @property
    def searches(self) -> bool:
        return "searches" in self.names

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        """Returns the rows of an SQL query; the result must be small."""
        return self.connection.execute(query, list(parameters)).fetchall()


@contextlib.contextmanager
def open_tables(
    labels: Path | str,
    logs: Path | str,
    *,
    until: datetime.datetime | None,
    long_watch_seconds: float,
    knowledge_documents: Path | str | None = None,
    memory_limit: str | None = None,
    on_bad_rows: OnBadRows = "fail",
) -> Iterator[ReportTables]:
    """Checks labels and logs, and makes the tables.

    Args:
      labels: the directory of the label table.
      logs: the directory of the log tables.
      until: the end (exclusive) of the events that mining read; later events are not read here either.
      long_watch_seconds: the minimum watch time that counts as clicked, as in mining.
      knowledge_documents: a directory of written documents, which replace the table in the logs.
      memory_limit: the limit of DuckDB's memory, such as "4GB"; None for 80 % of the machine's memory.
      on_bad_rows: the value that mining used: rows of the logs that break a rule are refused or left out.

    Raises:
      InputError: as `open_labels` and `open_logs`, and for a memory limit that is not a size.
      NamedFailure: memory and the temporary directory are full.
    """
    tables = open_logs(logs, on_bad_rows=on_bad_rows)
    read = [(tables, name) for name in sorted(tables.names)]
    if knowledge_documents is not None:
        written = open_written_documents(knowledge_documents, logs=tables)
        read = [(of, name) for of, name in read if name not in written.names]
        read += [(written, name) for name in written.names]
    progress = ProgressLine(total=4, desc="preparing labels and logs", unit="steps", leave=False)
    with progress, open_labels(labels) as (connection, label_files), named_lack_of_room():
        progress.update()
        if memory_limit is not None:
            connection.execute("SET memory_limit = $1", [duckdb_size(memory_limit)])
        for of, name in read:
            add_view(connection, of.tables[name], rewrites=of.rewrites.get(name))
        backend = ibis.duckdb.from_connection(connection)
        events = read_events(backend, tables.names, long_watch_seconds=long_watch_seconds).before(until)
        _make_finds(connection)
        _check_sources(connection, labels)
        progress.update()
        _make_pairs(connection, backend, events)
        progress.update()
        _make_asked(connection, backend, events)
        progress.close()
        names = frozenset(name for _, name in read)
        yield ReportTables(connection=connection, names=names, label_rows=label_files.rows)


def _make_finds(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes the tables ways and finds from the evidence of positives.

    If evidence does not name the source of the label's row, the row itself is used. Evidence of another form, which a
    user's own table can hold, is treated as missing.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE ways AS
        WITH entries AS (
          SELECT query, doc_id, unnest(from_json(evidence, '{_ENTRY}')) AS entry
          FROM labels WHERE level >= {int(Level.POSITIVE)} AND evidence IS NOT NULL
        ), told AS (
          SELECT query, doc_id, entry.source AS source, entry.score AS score, entry.via_query AS via_query,
            CASE WHEN isfinite(entry.gap_seconds) THEN entry.gap_seconds END AS gap_seconds,
            entry.supporters AS supporters, true AS told
          FROM entries WHERE entry.level >= {int(Level.POSITIVE)} AND entry.source IS NOT NULL
        )
        FROM told
        UNION ALL
        SELECT query, doc_id, source, score, NULL, NULL, NULL, false
        FROM labels ANTI JOIN told USING (query, doc_id, source) WHERE level >= {int(Level.POSITIVE)}
        """
    )
    connection.execute(
        "CREATE TEMP TABLE finds AS SELECT source, query, doc_id, min(gap_seconds) AS gap_seconds, "
        "max(supporters) AS supporters, max(score) AS score FROM ways GROUP BY source, query, doc_id"
    )


def _check_sources(connection: duckdb.DuckDBPyConnection, labels: Path | str) -> None:
    """Raises InputError if the labels name too many sources: a source is a perspective or a stage of the log."""
    number, first = connection.execute(
        "SELECT count(*), min(source) FROM (SELECT source FROM labels UNION SELECT source FROM finds)"
    ).fetchall()[0]
    if number > _MOST_SOURCES:
        raise InputError(
            f"table labels, column source: {labels} names {number} sources, such as {first[:80]!r}; at most "
            f"{_MOST_SOURCES} fit on a page; name perspectives or stages of the log there"
        )


def _make_pairs(connection: duckdb.DuckDBPyConnection, backend: DuckDBConnection, events: LogEvents) -> None:
    connection.execute(
        "CREATE TEMP TABLE found AS SELECT query, doc_id, count(*) AS perspectives FROM finds GROUP BY query, doc_id"
    )
    if events.impressions is None:
        connection.execute("CREATE TEMP TABLE pairs AS SELECT *, CAST(NULL AS INTEGER) AS place FROM found")
        return
    met = events.impressions.semi_join(backend.table("found"), ["query", "doc_id"])
    stages = ((met.stage == stage, at) for at, stage in enumerate(PLACES[1:-1], 1))
    place = cast(ibis.expr.types.Column, ibis.cases((met.consumed, 0), *stages, else_=1))
    backend.create_table("met", met.group_by("query", "doc_id").agg(place=place.min()), temp=True)
    connection.execute(
        f"CREATE TEMP TABLE pairs AS SELECT found.*, coalesce(met.place, {len(PLACES) - 1}) AS place "
        "FROM found LEFT JOIN met USING (query, doc_id)"
    )


def _make_asked(connection: duckdb.DuckDBPyConnection, backend: DuckDBConnection, events: LogEvents) -> None:
    """Makes the table asked, which divides queries into head, torso and tail.

    Head: the most searched queries, up to a third of all searches; torso: up to two thirds; tail: the rest. Queries
    that were searched equally often are always in the same part, and a query that was searched once is always tail.
    """
    if events.searches is None:
        return
    searches = events.searches.group_by("query").agg(searches=events.searches.count())
    backend.create_table("times_searched", searches, temp=True)
    clicked = "CAST(NULL AS BOOLEAN)"
    if events.impressions is not None:
        with_click = events.impressions.filter(events.impressions.consumed).select("query").distinct()
        backend.create_table("with_click", with_click, temp=True)
        clicked = "query IN (FROM with_click)"
    connection.execute(
        f"""
        CREATE TEMP TABLE asked AS
        WITH frequencies AS (
          SELECT searches, CAST(sum(searches) AS BIGINT) AS here FROM times_searched GROUP BY searches
        ), placed AS (
          SELECT searches, sum(here) OVER (ORDER BY searches DESC) - here AS before, sum(here) OVER () AS total
          FROM frequencies
        )
        SELECT query, searches, {clicked} AS clicked, CASE
          WHEN searches = 1 THEN 'tail' WHEN 3 * before < total THEN 'head' WHEN 3 * before < 2 * total THEN 'torso'
          ELSE 'tail' END AS part
        FROM times_searched JOIN placed USING (searches)
        """
    )
