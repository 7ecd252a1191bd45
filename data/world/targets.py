"""The published figures that the large world is calibrated on, fixed before any retriever was trained on it.

Of the paper's table only the rows BM25 and NCE are targets, so that nothing is known of CroPS and the other baselines.
The figures of TREC were measured in the public release of the TREC 2012 Session Track: 98 sessions, 191 result lists,
272 clicks, judgements by assessors for the topic of each session. No published share of searches that are followed by
the feed was found, so that one has no target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PAPER = "CroPS, AAAI 2026, arXiv 2511.15443, table of results"
_TREC = "measured in the TREC 2012 Session Track"
_AOL = "AOL query log of 2006, 36 million lines"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A published figure, how far a world may be from it, and where it is published."""

    value: float
    tolerance: float
    source: str


TARGETS: Mapping[str, Target] = {
    "bm25_ct_recall@100": Target(value=0.43, tolerance=0.05, source=f"{_PAPER}, row BM25: 42.9 %"),
    "bm25_qr_recall@100": Target(value=0.23, tolerance=0.05, source=f"{_PAPER}, row BM25: 22.5 %"),
    "bm25_ndcg@4": Target(value=0.65, tolerance=0.05, source=f"{_PAPER}, row BM25: 64.8 %"),
    "nce_ct_recall@100": Target(value=0.54, tolerance=0.05, source=f"{_PAPER}, row NCE: 53.6 %"),
    "nce_qr_recall@100": Target(value=0.28, tolerance=0.05, source=f"{_PAPER}, row NCE: 27.5 %"),
    "searches_with_a_click": Target(
        value=0.61,
        tolerance=0.08,
        source=f"{_AOL}: 53.4 %, as analysed at aolstalker.com and econsultancy.com; {_TREC}: 67.5 % of result lists",
    ),
    "reformulated_within_90_s": Target(
        value=0.22,
        tolerance=0.06,
        source="Jansen, Booth and Spink 2009: 1,523,072 queries in 964,780 sessions, so 36.7 % follow another one; "
        f"{_TREC}: 60.8 % of the queries that another one follows have a changed one within 90 s; the product",
    ),
    "clicks_on_the_first": Target(
        value=0.40,
        tolerance=0.08,
        source=f"{_AOL}: 42 % of the clicks and 47 % of those on the first page; {_TREC}: 32 %",
    ),
    "clicks_on_the_first_three": Target(
        value=0.68, tolerance=0.08, source=f"{_AOL}: 42 + 12 + 8 of the 90 % on the first page; {_TREC}: 65.5 %"
    ),
    "clicks_from_the_sixth": Target(
        value=0.17, tolerance=0.05, source=f"{_AOL}: 90 - 42 - 12 - 8 - 6 - 5 of 90 %; {_TREC}: 15.7 %"
    ),
    "relevant_among_shown": Target(value=0.45, tolerance=0.10, source=f"{_TREC}, grade >= 1: 965 of 2,151"),
    "relevant_among_clicked": Target(value=0.60, tolerance=0.10, source=f"{_TREC}, grade >= 1: 154 of 256"),
    "relevant_among_not_clicked": Target(value=0.43, tolerance=0.10, source=f"{_TREC}, grade >= 1: 811 of 1,877"),
    "median_seconds_to_reformulation": Target(
        value=67.0, tolerance=15.0, source=f"{_TREC}: the median time to the next changed query"
    ),
    "users_who_search": Target(
        value=0.70, tolerance=0.10, source="Qilin, SIGIR 2025, arXiv 2503.00501: search penetration over 70 %"
    ),
}


def compare_with_targets(measured: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """Returns for each target its value and tolerance, what was measured (None: nothing), and whether it is within."""
    compared = {}
    for name, target in TARGETS.items():
        found = measured.get(name)
        within = None if found is None else abs(found - target.value) <= target.tolerance + 1e-9
        compared[name] = {"measured": found, "value": target.value, "tolerance": target.tolerance, "within": within}
    return compared
