"""Our figures beside those of the paper.

The values cannot be reproduced elsewhere. What can be compared are the differences between systems, which are therefore
given too: to BM25, which is the same on both sides, and to the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from launch.comparison.measures import MAIN
from launch.comparison.presentation.published import published
from launch.comparison.results.table import Comparison

_COMMON = ("bm25", "none")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One system and metric, here and in the paper. A difference is None where one of its sides is not known."""

    system: str
    metric: str
    ours: float
    paper: float
    ours_to_bm25: float | None
    paper_to_bm25: float | None
    ours_to_reference: float | None
    paper_to_reference: float | None

    @property
    def difference(self) -> float:
        return self.ours - self.paper


def beside_the_paper(comparison: Comparison, metrics: Sequence[str]) -> list[Beside]:
    """Returns each system and metric for which the paper has a value."""
    rows = []
    for one in comparison.trained:
        for metric in metrics:
            mean, paper = comparison.means.get((*one.key, metric)), published(*one.key, metric)
            if mean is None or paper is None:
                continue
            rows.append(
                Beside(
                    system=one.system,
                    metric=MAIN[metric],
                    ours=mean.value,
                    paper=paper,
                    ours_to_bm25=_minus(comparison, one.key, _COMMON, metric),
                    paper_to_bm25=_paper_minus(one.key, _COMMON, metric),
                    ours_to_reference=_minus(comparison, one.key, (comparison.reference, "transformer"), metric),
                    paper_to_reference=_paper_minus(one.key, (comparison.reference, "transformer"), metric),
                )
            )
    return rows


def _minus(comparison: Comparison, key: tuple[str, str], other: tuple[str, str], metric: str) -> float | None:
    """Returns the difference of two means; both are over the same queries. None for a system and itself."""
    mean, mean_of_other = comparison.means.get((*key, metric)), comparison.means.get((*other, metric))
    return None if key == other or mean is None or mean_of_other is None else mean.value - mean_of_other.value


def _paper_minus(key: tuple[str, str], other: tuple[str, str], metric: str) -> float | None:
    value, value_of_other = published(*key, metric), published(*other, metric)
    return None if key == other or value is None or value_of_other is None else value - value_of_other
