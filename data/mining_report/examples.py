"""Examples: positives that are chosen by hash, each with its evidence, which leads from the query to the document."""

from typing import Any, NamedTuple

from data.mining_report.tables import PLACES, ReportTables

_WAYS = 3
_TITLE = 200


class Way(NamedTuple):
    """One entry of the evidence; a field is None if it does not apply."""

    source: str
    via_query: str | None
    gap_seconds: float | None
    supporters: int | None
    score: float | None

    def facts(self) -> list[str]:
        """Returns the known facts of the entry in words."""
        facts = []
        if self.gap_seconds is not None:
            facts.append(f"{self.gap_seconds:,.4g} s apart")
        if self.supporters is not None:
            facts.append(f"{self.supporters:,} {'user' if self.supporters == 1 else 'users'}")
        if self.score is not None:
            facts.append(f"theta {self.score:.3f}")
        return facts


class Example(NamedTuple):
    """One positive.

    title is None if the logs do not hold the document; model is None if no language model wrote it.
    """

    query: str
    searches: int | None
    doc_id: str
    title: str | None
    model: str | None
    place: str | None
    ways: list[Way]
    more_ways: int


def draw_examples(tables: ReportTables, source: str, *, number: int, seed: int) -> list[Example]:
    """Returns `number` positives of a perspective: unclicked ones before clicked ones, then by MD5 of seed and pair."""
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
    # The evidence of the perspective for which the example was chosen comes first.
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
    """Returns doc_id -> (title, model); model is None if no language model wrote the document."""
    written = ""
    if "knowledge_documents" in tables.names:
        written = " UNION ALL SELECT doc_id, title, model FROM knowledge_documents WHERE doc_id IN (SELECT unnest($1))"
    rows = tables.rows(
        f"SELECT doc_id, title, NULL FROM documents WHERE doc_id IN (SELECT unnest($1)){written}", doc_ids
    )
    return {row[0]: row[1:] for row in rows}
