"""The claims of the paper (CroPS, AAAI 2026, arXiv 2511.15443), and the rules that decide on them.

A claim about quality names pairs of systems and metrics. A part of it is "held" only if the difference is in the
claimed direction and its interval excludes 0 after Holm's correction over all differences of the table, "refuted" if it
excludes 0 in the other direction, and "not shown" otherwise. A claim is held if all of its parts are, and refuted if
one of them is.

No part is decided while one of its trained systems has fewer than FEWEST_SEEDS seeds, because the intervals are over
queries and do not cover the difference between two runs. None is decided either where tuning gave the two systems
different learning rates: the rate alone can make a larger difference than the systems, and dev hardly tells rates
apart.

docs/comparison.md (Claims of the paper) says which rules and claims are later than the first results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from launch.comparison.evidence.anchors import FIGURE, positives_per_query
from launch.comparison.measures import HIDDEN, MAIN
from launch.comparison.presentation.published import CT, NDCG, QR
from launch.comparison.results.statistics import Difference
from launch.comparison.results.table import RATES_DIFFER, WORLD, Catalogue, Comparison, Pair, as_csv, rates_differ

CLAIMS_FILE = "claims.csv"
HELD, REFUTED, NOT_SHOWN = "held", "refuted", "not shown"
NOT_RUN, NOT_TESTABLE = "not run", "cannot be tested here"
TOO_FEW_SEEDS = "too few seeds"
FEWEST_SEEDS = 3
"""The number of seeds of a trained system below which no claim about it is decided."""
NOT_WORSE_MARGIN = 0.01
"""The loss of NDCG@4 that counts as none: the gain that the paper reports for CroPS over FS-LR in this metric."""
_LESS_TIME = 0.75
"""The share of the training time of InfoNCE that still counts as about half of it."""
_RETRIEVAL = (CT, QR)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim: a sentence, and what is compared to decide on it."""

    text: str
    better: str = ""
    """The system that is claimed to be better; empty for a claim that no comparison of systems decides."""
    worse: tuple[str, ...] = ()
    architecture: str = "transformer"
    metrics: tuple[str, ...] = _RETRIEVAL
    margin: float = 0.0
    """Above 0, the claim is that `better` is not worse by more than this. Its parts are held if the interval lies above
    -margin, and refuted if it lies below. The interval is the one that all differences of the table share, because
    that of Holm's correction belongs to the question whether a difference is 0."""
    costs: tuple[str, str] | None = None
    """(cheaper, dearer): the claim is about their training time."""
    reason: str = ""
    """Why the claim cannot be tested here."""

    @property
    def pairs(self) -> list[Pair]:
        """The comparisons that decide on the claim."""
        return [
            Pair(self.better, self.architecture, other, "none" if other == "bm25" else self.architecture, metric)
            for other in self.worse
            for metric in self.metrics
        ]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison of a claim."""

    pair: Pair
    found: Difference | None
    """None if a system has no finished cell, or the metric is not measured."""
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim with its evidence and its verdict."""

    claim: Claim
    verdict: str
    parts: Sequence[Part] = field(default_factory=tuple)
    evidence: str = ""
    """A sentence, for a claim that has no parts."""


RETRIEVES_MORE = "CroPS retrieves more than "
"""The first words of the claims that compare CroPS with one other system, in CT and QR."""


def _beats(other: str, name: str) -> Claim:
    return Claim(text=f"{RETRIEVES_MORE}{name}", better="crops", worse=(other,))


def _negatives_help(system: str, name: str) -> Claim:
    return Claim(
        text=f"{name} retrieves more than NCE, whose negatives are those of the batch", better=system, worse=("nce",)
    )


def _adds(better: str, worse: str, text: str) -> Claim:
    return Claim(text=text, better=better, worse=(worse,))


def _orders_better(other: str, name: str) -> Claim:
    return Claim(text=f"CroPS has a higher NDCG@4 than {name}", better="crops", worse=(other,), metrics=(NDCG,))


CLAIMS = (
    _beats("bm25", "BM25"),
    _beats("nce", "NCE"),
    _beats("dpr", "DPR"),
    _beats("ance", "ANCE"),
    _beats("adore_star", "ADORE+STAR"),
    _beats("trisampler", "TriSampler"),
    _beats("fs_lr", "FS-LR, which learns from the search log alone"),
    _adds("crops_query_level", "fs_lr", "Positives of the query level add to the search log"),
    _adds("crops_query_system", "crops_query_level", "Positives of the system level add to the query level"),
    _adds("crops", "crops_query_system", "Positives of the knowledge level add to the query and system levels"),
    _adds("crops", "crops_binary", "Hierarchical labels are better than binary labels"),
    _adds("crops", "crops_query_level_at_4", "The query level is better at level 5 than at level 4"),
    _adds("crops", "infonce", "H-InfoNCE is better than InfoNCE"),
    _adds("crops", "softmax_cross_entropy", "H-InfoNCE is better than softmax cross-entropy"),
    Claim(text="H-InfoNCE takes about half of the training time of InfoNCE", costs=("crops", "infonce")),
    _orders_better("bm25", "BM25"),
    _orders_better("nce", "NCE"),
    _orders_better("fs_lr", "FS-LR"),
    Claim(
        text=f"NDCG@4 of CroPS is not worse than that of FS-LR (by more than {NOT_WORSE_MARGIN})",
        better="crops",
        worse=("fs_lr",),
        metrics=(NDCG,),
        margin=NOT_WORSE_MARGIN,
    ),
    Claim(text="FS-LR retrieves more than NCE", better="fs_lr", worse=("nce",)),
    _negatives_help("dpr", "DPR"),
    _negatives_help("ance", "ANCE"),
    _negatives_help("adore_star", "ADORE+STAR"),
    _negatives_help("trisampler", "TriSampler"),
    Claim(
        text="The gain over FS-LR holds for towers of hashed IDs (the paper's sparse encoder)",
        better="crops",
        worse=("fs_lr",),
        architecture="hashed",
    ),
    Claim(
        text="CroPS retrieves more of the relevant documents that no search showed (the escape from the filter bubble, "
        "which the paper does not measure)",
        better="crops",
        worse=("fs_lr",),
        metrics=(HIDDEN,),
    ),
    Claim(
        text="Users of the product click, watch and search more (online A/B tests)",
        reason="It needs the traffic of a product.",
    ),
)
"""The claims in the order of the page. A claim whose systems have no finished cell is "not run"."""


def claimed_pairs() -> list[Pair]:
    """Returns the comparisons that the claims need."""
    return [pair for claim in CLAIMS for pair in claim.pairs]


def further_pairs(catalogue: Catalogue) -> Sequence[Pair]:
    """Returns the comparisons beside those with the reference: those of the claims for a world, or the catalogue's."""
    return claimed_pairs() if catalogue is WORLD else catalogue.pairs


def judge(comparison: Comparison, claims: Sequence[Claim] = CLAIMS) -> list[Judged]:
    """Returns every claim with its verdict."""
    return [_judged(comparison, claim) for claim in claims]


def claims_csv(judged: Sequence[Judged]) -> str:
    """Returns the claims as a table with one row for each comparison."""
    columns = ("claim", "verdict", "system", "other", "architecture", "metric", "difference", "low_holm", "high_holm")
    return as_csv((*columns, "p_holm", "queries", "part_verdict", "evidence"), list(_csv_rows(judged)))


def _judged(comparison: Comparison, claim: Claim) -> Judged:
    if claim.reason:
        return Judged(claim=claim, verdict=NOT_TESTABLE, evidence=claim.reason)
    if claim.costs:
        return _judged_costs(comparison, claim, *claim.costs)
    parts = [
        Part(
            pair=pair,
            found=found,
            verdict=_undecidable(comparison, pair) or verdict_of(found, margin=claim.margin),
        )
        for pair in claim.pairs
        for found in [comparison.difference(pair)]
    ]
    measured = [part.verdict for part in parts if part.found is not None]
    if not measured:
        return Judged(claim=claim, verdict=NOT_RUN, parts=parts)
    for decisive in (TOO_FEW_SEEDS, RATES_DIFFER, REFUTED):
        if decisive in measured:
            return Judged(claim=claim, verdict=decisive, parts=parts)
    # A claim about two tests is not held by one of them.
    all_held = len(measured) == len(parts) and set(measured) == {HELD}
    return Judged(claim=claim, verdict=HELD if all_held else NOT_SHOWN, parts=parts)


def verdict_of(found: Difference | None, *, margin: float = 0.0) -> str:
    """Returns the verdict on one comparison, whose difference is that of the system that is claimed to be better."""
    if found is None:
        return NOT_RUN
    if found.verdict == "too few queries":
        return NOT_SHOWN
    if margin:
        return HELD if found.low_all > -margin else REFUTED if found.high_all < -margin else NOT_SHOWN
    return {"better": HELD, "worse": REFUTED}.get(found.verdict, NOT_SHOWN)


def _undecidable(comparison: Comparison, pair: Pair) -> str:
    """Returns why no claim can be decided by a pair; empty if it can. BM25 needs one seed and has no learning rate."""
    by_key = {one.key: one for one in comparison.trained if one.architecture != "none"}
    keys = ((pair.system, pair.architecture), (pair.other, pair.other_architecture))
    both = [by_key.get(key) for key in keys if key[1] != "none"]
    if any(one is None or len(one.results) < FEWEST_SEEDS for one in both):
        return TOO_FEW_SEEDS
    return RATES_DIFFER if rates_differ(*both) else ""


def _judged_costs(comparison: Comparison, claim: Claim, cheaper: str, dearer: str) -> Judged:
    """Returns the verdict on the training time, for which the number of positives of a query counts.

    A step of InfoNCE contrasts one positive of each query, and a step of H-InfoNCE, which is not cheaper, contrasts all
    P of them. For the same positives, H-InfoNCE therefore takes at least 1 / P of the time of InfoNCE. Where this is
    more than _LESS_TIME, the batches do not have what the claim is about. The times of the cells are shown but decide
    nothing: cells are trained at different moments, beside whatever else the machine does.
    """
    by_key = {one.key: one for one in comparison.trained}
    one, other = (by_key.get((system, claim.architecture)) for system in (cheaper, dearer))
    if one is None or other is None:
        return Judged(claim=claim, verdict=NOT_RUN)
    step, step_of_other = one.figure("step_seconds"), other.figure("step_seconds")
    positives = positives_per_query({name: one.figure(name) for name in (f"{FIGURE}_4", f"{FIGURE}_5")})
    if not step or not step_of_other or not positives:
        return Judged(
            claim=claim, verdict=NOT_SHOWN, evidence="The times or the numbers of positives are not recorded."
        )
    least = 1 / max(1.0, positives)
    evidence = (
        f"A query has {positives:.2f} positives in a batch, and a step of InfoNCE contrasts one of them. For the same "
        f"positives, H-InfoNCE takes at least {least:.2f} of the time of InfoNCE; up to {_LESS_TIME} would count as "
        f"about half. A step took {step:.3f} s with H-InfoNCE and {step_of_other:.3f} s with InfoNCE, but at different "
        "moments, so that these times decide nothing; benchmarks/loss.py compares the losses in one run."
    )
    return Judged(claim=claim, verdict=NOT_TESTABLE if least > _LESS_TIME else NOT_SHOWN, evidence=evidence)


def metric_label(metric: str) -> str:
    """Returns the name of a metric in tables."""
    return MAIN.get(metric, metric)


def _csv_rows(judged: Sequence[Judged]) -> Iterator[tuple]:
    for one in judged:
        if not one.parts:
            yield (one.claim.text, one.verdict, *[None] * 10, one.evidence)
        for part in one.parts:
            found = part.found
            numbers = (
                (found.estimate.value, found.low_holm, found.high_holm, found.p_holm, found.estimate.queries)
                if found
                else [None] * 5
            )
            pair = part.pair
            yield (one.claim.text, one.verdict, pair.system, pair.other, pair.architecture, pair.metric) + (
                *numbers,
                part.verdict,
                None,
            )
