"""The phases of the baselines with mined negatives. All phases of a system together take the steps of any system."""

from configs.baselines import nce
from configs.baselines.hard_negatives import adore, ance, dpr, sampled, star
from launch.comparison.phases.plan import Negatives, Phase

REFRESHES = 3
"""The number of times that ANCE mines, each after as many steps as the warm-up has."""
_NEAREST = ("--top", "200")
_CANDIDATES = "20"
"""The number of negatives that are mined for a query. Each step draws those of its batch among them."""

BM25_NEGATIVES = Negatives(ranked_by="bm25", flags=("--top", "100", "--per-query", _CANDIDATES, "--sampling", "random"))
"""20 of the first 100 documents of BM25; made once for all systems and seeds."""
_RANDOM = Negatives(ranked_by="previous_run", flags=(*_NEAREST, "--per-query", _CANDIDATES, "--sampling", "random"))


def _sampler(name: str) -> Negatives:
    return Negatives(ranked_by="previous_run", flags=(*_NEAREST, "--per-query", _CANDIDATES, "--sampling", name))


def _sampled(sampler: str) -> tuple[Phase, ...]:
    """Returns a warm-up, and two refreshes with negatives of a sampler."""
    refreshes = (
        Phase(name=f"{sampler}_{number}", config=sampled.CHANGES, negatives=_sampler(sampler)) for number in (1, 2)
    )
    return (WARM_UP, *refreshes)


WARM_UP = Phase(name="warm_up_nce", parts=2, config=nce.CHANGES, shared=True)
"""The system nce for half of the steps, one run for all systems of a seed."""

DPR = (Phase(name="dpr", config=dpr.CHANGES, negatives=BM25_NEGATIVES),)
STAR = (WARM_UP, Phase(name="star", parts=2, config=star.CHANGES, negatives=_RANDOM))
ANCE = (
    Phase(name="warm_up_bm25", config=dpr.CHANGES, negatives=BM25_NEGATIVES, shared=True),
    *(Phase(name=f"ance_{number}", config=ance.CHANGES, negatives=_RANDOM) for number in range(1, REFRESHES + 1)),
)
ADORE = (WARM_UP, Phase(name="adore", parts=2, config=adore.CHANGES, frozen_documents=True))
ADORE_STAR = (
    WARM_UP,
    Phase(name="star", config=star.CHANGES, negatives=_RANDOM),
    Phase(name="adore", config=adore.CHANGES, frozen_documents=True),
)
SIMANS = _sampled("simans")
TRISAMPLER = _sampled("trisampler")
