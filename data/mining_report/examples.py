"""Positives drawn by hash, each with its evidence: how a perspective came from the query to the document."""

from typing import Any, NamedTuple

from data.mining_report.tables import PLACES, ReportTables

_WAYS = 3
_TITLE = 200


class Way(NamedTuple):
    """One entry of the evidence; None where it does not apply."""

    source: str
    via_query: str | None
    gap_seconds: float | None
    supporters: int | None
    score: float | None

    def facts(self) -> list[str]:
        """What is known of it, in words."""
        told = []
        if self.gap_seconds is not None:
            told.append(f"{self.gap_seconds:,.4g} s apart")
        if self.supporters is not None:
            told.append(f"{self.supporters:,} {'user' if self.supporters == 1 else 'users'}")
        if self.score is not None:
            told.append(f"theta {self.score:.3f}")
        return told


class Example(NamedTuple):
    """One positive. title and model are None where the logs do not know the document, or it was not written."""

    query: str
    searches: int | None
    doc_id: str
    title: str | None
    model: str | None
    place: str | None
    ways: list[Way]
    more_ways: int


def draw_examples(tables: ReportTables, source: str, *, number: int, seed: int) -> list[Example]:
    """`number` positives of a perspective: not clicked for the query before clicked, then by MD5 of seed and pair."""
    pairs = tables.rows(
        "SELECT query, doc_id FROM finds JOIN pairs USING (query, doc_id) WHERE source = $1 "
        "ORDER BY coalesce(place = 0, false), md5(concat_ws(chr(0), $2, query, doc_id)), query, doc_id LIMIT $3",
        source,
        str(seed),
        number,
    )
    titles = _titles(tables, [doc_id for _, doc_id in pairs])
    return [_example(tables, source, query, doc_id, *titles.get(doc_id, (None, None))) for query, doc_id in pairs]


def _example(
    tables: ReportTables, source: str, query: str, doc_id: str, title: str | None, model: str | None
) -> Example:
    place = tables.rows("SELECT place FROM pairs WHERE query = $1 AND doc_id = $2", query, doc_id)[0][0]
    # The perspective that it was drawn for comes first.
    ways = tables.rows(
        "SELECT source, via_query, gap_seconds, supporters, score FROM ways WHERE query = $1 AND doc_id = $2 "
        "ORDER BY source <> $3, source, gap_seconds, via_query",
        query,
        doc_id,
        source,
    )
    searches = tables.rows("SELECT searches FROM asked WHERE query = $1", query) if tables.searches else []
    return Example(
        query=query,
        searches=searches[0][0] if searches else None,
        doc_id=doc_id,
        title=title if title is None or len(title) <= _TITLE else f"{title[:_TITLE]} …",
        model=model,
        place=None if place is None else PLACES[place],
        ways=[Way(*way) for way in ways[:_WAYS]],
        more_ways=max(0, len(ways) - _WAYS),
    )


def _titles(tables: ReportTables, doc_ids: list[str]) -> dict[str, tuple[Any, ...]]:
    """doc_id -> title, and the model where one wrote the document."""
    written = ""
    if "knowledge_documents" in tables.names:
        written = " UNION ALL SELECT doc_id, title, model FROM knowledge_documents WHERE doc_id IN (SELECT unnest($1))"
    rows = tables.rows(
        f"SELECT doc_id, title, NULL FROM documents WHERE doc_id IN (SELECT unnest($1)){written}", doc_ids
    )
    return {row[0]: row[1:] for row in rows}
