"""The numbers of data.report: the gain of each perspective as plain data for the page, the outcome and tests."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from crops_jax.pages.frame import number, ticks
from data.backends.sql import quoted_text
from data.labels.assign_levels import PRECEDENCE
from data.mining_report.tables import PLACES, ReportTables

LOG = "search_log"
"""The perspective of what the current retriever showed; the others are compared with it."""

PARTS = ("head", "torso", "tail", "not searched")
_PER_QUERY = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None))
_SUPPORTERS = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 19), (20, 49), (50, None))
_GAP_BINS = 9
_NEVER_SHOWN = PLACES.index("ranked_not_shown")


class Gain(NamedTuple):
    """The positives of a perspective. `places` and the numbers from it are None if the log has no candidates."""

    queries: int
    positives: int
    documents: int
    only_here: int
    places: tuple[int, ...] | None
    """The number of positives by the furthest stage that the document reached for the query: PLACES."""

    @property
    def not_clicked(self) -> int | None:
        return None if self.places is None else sum(self.places[1:])

    @property
    def never_shown(self) -> int | None:
        return None if self.places is None else sum(self.places[_NEVER_SHOWN:])

    @property
    def never_candidate(self) -> int | None:
        return None if self.places is None else self.places[-1]

    def share(self, name: str) -> float | None:
        """Returns the share of the positives that a field counts; None if it is not known or there are no positives."""
        value = getattr(self, name)
        return None if value is None or not self.positives else value / self.positives

    def as_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("queries", "positives", "documents", "only_here")}
        for name in ("not_clicked", "never_shown", "never_candidate"):
            share = self.share(name)
            counts |= {name: getattr(self, name), f"{name}_share": None if share is None else round(share, 6)}
        return counts


class Distribution(NamedTuple):
    """The distribution of a value: the counts of known and unknown values, quantiles, and counts by bin."""

    known: int
    unknown: int
    median: float
    ninth_decile: float
    most: float
    bins: list[tuple[str, int]]


class Part(NamedTuple):
    """A group of queries: the number of queries and of searches, and their positives by perspective."""

    queries: int
    searches: int
    gained: dict[str, tuple[int, int]]
    """Perspective -> (queries, positives)."""


def gains(tables: ReportTables) -> dict[str, Gain]:
    """Returns perspective -> gain, in the order of PRECEDENCE, without perspectives that have no positives."""
    return dict(sorted(_gains(tables, "source", "finds").items(), key=lambda item: _order(item[0])))


def beyond_log(tables: ReportTables) -> Gain:
    """Returns the gain of all other perspectives together without the pairs of the search log; each pair counts once.

    Only documents of the corpus count, because a document that a language model wrote could not have been shown.
    """
    others = (
        "(SELECT DISTINCT query, doc_id FROM finds SEMI JOIN documents USING (doc_id) "
        f"ANTI JOIN (FROM finds WHERE source = '{LOG}') USING (query, doc_id))"
    )
    none = Gain(0, 0, 0, 0, (0,) * len(PLACES) if tables.candidates else None)
    return _gains(tables, "'beyond'", others).get("beyond", none)


def _gains(tables: ReportTables, name: str, finds: str) -> dict[str, Gain]:
    places = ", ".join(f"count(*) FILTER (place = {at})" for at in range(len(PLACES)))
    rows = tables.rows(
        f"SELECT {name} AS name, count(DISTINCT query), count(*), count(DISTINCT doc_id), "
        f"count(*) FILTER (perspectives = 1), {places} FROM {finds} JOIN pairs USING (query, doc_id) GROUP BY name"
    )
    return {
        name: Gain(queries, positives, documents, only_here, tuple(places) if tables.candidates else None)
        for name, queries, positives, documents, only_here, *places in rows
    }


def overlaps(tables: ReportTables) -> dict[tuple[str, str], int]:
    """Returns (perspective, other) -> the number of pairs that both have as positives."""
    rows = tables.rows(
        "SELECT one.source, other.source, count(*) FROM finds AS one JOIN finds AS other USING (query, doc_id) "
        "GROUP BY ALL"
    )
    return {(one, other): pairs for one, other, pairs in rows}


def positives_per_query(tables: ReportTables) -> dict[str, Distribution]:
    """Returns perspective -> the distribution of positives per query, over queries with at least one."""
    return _distributions(
        tables, "(SELECT source, query, count(*) AS value FROM finds GROUP BY source, query)", _PER_QUERY
    )


def supporters(tables: ReportTables) -> dict[str, Distribution]:
    """Returns perspective -> the distribution of distinct users per positive; the maximum over its reformulations."""
    return _distributions(tables, "(SELECT source, supporters AS value FROM finds)", _SUPPORTERS)


def gaps(tables: ReportTables) -> dict[str, Distribution]:
    """Returns perspective -> the distribution of the minimum seconds between the query and the evidence of a positive.

    A bin includes its upper end.
    """
    found = {}
    for source, most in tables.rows("SELECT source, max(gap_seconds) FROM finds GROUP BY source ORDER BY source"):
        if most is None:
            continue
        marks = ticks(0, max(most, 1.0), about=_GAP_BINS)
        width = marks[1] - marks[0]
        finds = (
            f"(SELECT source, gap_seconds AS value, "
            f"least(greatest(1, ceil(gap_seconds / {width})), {len(marks) - 1}) AS bin FROM finds "
            f"WHERE source = {quoted_text(source)})"
        )
        bins = tables.rows(f"SELECT bin, count(*) FROM {finds} WHERE value IS NOT NULL GROUP BY bin")
        counts = {int(at): positives for at, positives in bins}
        labels = [f"{number(low)} to {number(high)} s" for low, high in itertools.pairwise(marks)]
        found[source] = Distribution(
            *_quantiles(tables, finds)[source], [(label, counts.get(at, 0)) for at, label in enumerate(labels, 1)]
        )
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def levels(tables: ReportTables) -> dict[str, dict[int, int]]:
    """Returns source -> level -> the number of labels, in the order of PRECEDENCE."""
    found: dict[str, dict[int, int]] = {}
    for source, level, labels in tables.rows("SELECT source, level, count(*) FROM labels GROUP BY ALL ORDER BY ALL"):
        found.setdefault(source, {})[level] = labels
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def parts(tables: ReportTables) -> dict[str, Part]:
    """Returns the numbers of each of PARTS that has queries. It is empty if the logs have no searches."""
    if not tables.searches:
        return {}
    asked = {row[0]: row[1:] for row in tables.rows("SELECT part, count(*), sum(searches) FROM asked GROUP BY part")}
    gained: dict[str, dict[str, tuple[int, int]]] = {}
    for part, source, queries, positives in tables.rows(
        f"SELECT coalesce(part, '{PARTS[-1]}') AS part, source, count(DISTINCT query), count(*) "
        "FROM finds LEFT JOIN asked USING (query) GROUP BY ALL"
    ):
        gained.setdefault(part, {})[source] = (queries, positives)
    unasked = tables.rows("SELECT count(DISTINCT query) FROM labels ANTI JOIN asked USING (query)")[0][0]
    if unasked:
        asked[PARTS[-1]] = (unasked, 0)
    return {
        part: Part(int(asked[part][0]), int(asked[part][1]), gained.get(part, {})) for part in PARTS if part in asked
    }


def without_click(tables: ReportTables) -> tuple[Part, Part] | None:
    """Returns the numbers of the queries without any click, like or long watch, and of the other queries.

    In `gained`, "together" counts each positive that is not one of the search log once. The result is None if the logs
    have no candidates.
    """
    if not tables.candidates:
        return None
    return _by_click(tables, "NOT clicked"), _by_click(tables, "clicked")


def _by_click(tables: ReportTables, condition: str) -> Part:
    queries, searches = tables.rows(f"SELECT count(*), coalesce(sum(searches), 0) FROM asked WHERE {condition}")[0]
    gained = {
        source: (found, positives)
        for source, found, positives in tables.rows(
            "SELECT source, count(DISTINCT query), count(*) FROM finds JOIN asked USING (query) "
            f"WHERE {condition} GROUP BY source"
        )
    }
    gained["together"] = tables.rows(
        "SELECT count(DISTINCT query), count(DISTINCT (query, doc_id)) FROM finds JOIN asked USING (query) "
        f"ANTI JOIN (FROM finds WHERE source = '{LOG}') USING (query, doc_id) WHERE {condition}"
    )[0]
    return Part(queries, int(searches), gained)


def unknown_documents(tables: ReportTables) -> int:
    """Returns the number of labels whose document is in neither documents nor knowledge_documents."""
    written = " ANTI JOIN knowledge_documents USING (doc_id)" if "knowledge_documents" in tables.names else ""
    return tables.rows(f"SELECT count(*) FROM labels ANTI JOIN documents USING (doc_id){written}")[0][0]


def writers(tables: ReportTables) -> dict[str, int]:
    """Returns language model -> the number of positives of knowledge_level that it wrote."""
    if "knowledge_documents" not in tables.names:
        return {}
    return dict(
        tables.rows(
            "SELECT model, count(*) FROM finds JOIN knowledge_documents USING (doc_id) "
            "WHERE source = 'knowledge_level' GROUP BY model ORDER BY model"
        )
    )


def without_evidence(tables: ReportTables) -> int:
    """Returns the number of positive labels whose evidence does not name their own source."""
    return tables.rows("SELECT count(*) FROM ways WHERE NOT told")[0][0]


def _distributions(
    tables: ReportTables, values: str, bins: Sequence[tuple[int, int | None]]
) -> dict[str, Distribution]:
    """Returns source -> the distribution of integer values, without sources that have no known value."""
    counts: dict[str, list[int]] = {}
    for source, value, rows in tables.rows(
        f"SELECT source, value, count(*) FROM {values} WHERE value IS NOT NULL GROUP BY ALL"
    ):
        counted = counts.setdefault(source, [0] * len(bins))
        counted[next(at for at, (_, last) in enumerate(bins) if last is None or value <= last)] += rows
    labels = [_bin_label(first, last) for first, last in bins]
    quantiles = _quantiles(tables, values)
    found = {source: Distribution(*quantiles[source], _trimmed(labels, counted)) for source, counted in counts.items()}
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _quantiles(tables: ReportTables, values: str) -> dict[str, tuple[int, int, float, float, float]]:
    rows = tables.rows(
        "SELECT source, count(value), count(*) - count(value), quantile_disc(value, .5), quantile_disc(value, .9), "
        f"max(value) FROM {values} GROUP BY source"
    )
    return {source: (known, unknown, median, decile, most) for source, known, unknown, median, decile, most in rows}


def _trimmed(labels: Sequence[str], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Returns the bins up to the last one that is not empty."""
    last = max(at for at, count in enumerate(counts) if count)
    return list(zip(labels, counts, strict=True))[: last + 1]


def _bin_label(first: int, last: int | None) -> str:
    if last is None:
        return f"{first} or more"
    return str(first) if first == last else f"{first} to {last}"


def _order(source: str) -> tuple[int, str]:
    """Returns a sort key: perspectives and log stages in the order of PRECEDENCE, other sources after them."""
    return (PRECEDENCE.index(source) if source in PRECEDENCE else len(PRECEDENCE), source)
