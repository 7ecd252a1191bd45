"""The headline figures of a report: their names, their order, and the K of each Recall, in this one place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RANDOM_AT_MOST = 0.005
"""The Recall@100 of a random order up to which CT and QR are measured by Recall@100."""
SATURATED = 0.95
"""The Recall@100 that no system may fall short of for a test to count as saturated."""

Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Test set -> metric -> figure, as in metrics.json."""


_TESTS = {"ct": "CT", "qr": "QR", "judgements": "Judged", "hidden_relevant": "Hidden relevant", "truth": "True"}
_RELEVANT = {
    "ct": "the documents clicked for a query in the held-out part of the log (CT is the click test)",
    "qr": "the documents that a user clicked, liked or watched long after rephrasing the query, where theta or, in a "
    "generated world, the truth agrees (QR is the query reformulation test)",
    "judgements": "the documents that are judged relevant for a query",
    "hidden_relevant": "the documents that are relevant by the truth of the generated world, but that no search of the "
    "log showed for the query",
}


def label_of(test: str, metric: str) -> str:
    """Returns what pages and outcome lines call a metric. NDCG and Judged do not name the judged set."""
    words = metric.replace("recall", "Recall").replace("ndcg", "NDCG").replace("judged", "Judged")
    alone = test == "judgements" and not metric.startswith("recall")
    return words if alone else f"{_TESTS[test]} {words}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: where metrics.json and per_query.parquet hold it, and what pages and outcome lines call it."""

    test: str
    metric: str
    pairs: str = "all"
    """"all", or "unseen" for the pairs of a query and a document that the log does not have."""

    @property
    def label(self) -> str:
        return label_of(self.test, self.metric) + ("" if self.pairs == "all" else f", {self.pairs} pairs")

    @property
    def meaning(self) -> str:
        """The sentence that says what the figure measures."""
        name, _, depth = self.metric.partition("@")
        if name == "ndcg" and self.test == "truth":
            return (
                f"the quality of the order of the first {depth} documents by the truth of the generated world, which "
                "grades every document, judged or not."
            )
        if name == "ndcg":
            return (
                f"the quality of the order of the first {depth} documents by graded judgements; 1 is the best possible "
                "order. Unjudged documents count as not relevant."
            )
        share = f"the share of {_RELEVANT[self.test]} that the system ranks among its first {depth}"
        return f"{share}." if self.pairs == "all" else f"{share}, without the pairs that the log already has as clicks."

    def of(self, figures: Tables, subsets: Mapping[str, Tables]) -> dict[str, Any] | None:
        """Returns the figure of a system, from its part of "systems" and of "subsets"; None where it has no query."""
        tables = figures if self.pairs == "all" else subsets.get(f"{self.pairs}_pairs", {})
        found = tables.get(self.test, {}).get(self.metric)
        return dict(found) if found and found.get("queries") != 0 and found.get("value") is not None else None


NDCG = Figure(test="judgements", metric="ndcg@4")
TRUE_NDCG = Figure(test="truth", metric="ndcg@4")
ALWAYS = (Figure(test="ct", metric="recall@100"), Figure(test="qr", metric="recall@100"), NDCG)
"""The figures that outcome lines hold for a corpus of any size, so that programs that read them need not know it."""


def click_depth(documents: int) -> int:
    """Returns the K of Recall@K on CT and QR: 100 from 20,000 documents on, else 10.

    A query of these tests has few relevant documents. A random order of N documents reaches Recall@100 = 100 / N. Where
    that exceeds RANDOM_AT_MOST, 100 documents are a large part of the corpus, and Recall@100 is near 1 for any system.
    """
    return 100 if RANDOM_AT_MOST * documents >= 100 else 10


def headline(documents: int, systems: Iterable[Tables]) -> tuple[Figure, ...]:
    """Returns the headline figures in their order.

    The K of CT and QR is that of `click_depth`. Judged queries and queries with hidden relevant documents have many
    relevant documents, so K is 100 there, unless every system exceeds SATURATED: then it is 10.

    Args:
      documents: the number of documents of the corpus.
      systems: test set -> metric -> figure of each system that is compared.
    """
    tables = list(systems)
    k, judged, hidden = click_depth(documents), _deep(tables, "judgements"), _deep(tables, "hidden_relevant")
    figures = [
        Figure(test="judgements", metric=f"recall@{judged}"),
        NDCG,
        *([TRUE_NDCG] if any("truth" in one for one in tables) else []),
        Figure(test="ct", metric=f"recall@{k}", pairs="unseen"),
        Figure(test="ct", metric=f"recall@{k}"),
        Figure(test="qr", metric=f"recall@{k}"),
    ]
    if any("hidden_relevant" in one for one in tables):
        figures.append(Figure(test="hidden_relevant", metric=f"recall@{hidden}"))
    return tuple(figures)


def _deep(systems: Iterable[Tables], test: str) -> int:
    reached = [one[test]["recall@100"]["value"] for one in systems if one.get(test, {}).get("recall@100")]
    known = [value for value in reached if value is not None]
    return 10 if known and min(known) > SATURATED else 100
