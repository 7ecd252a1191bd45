"""The counts of launch.mine_negatives."""

import numpy as np
from jaxtyping import Float64

from crops_jax.retrieval.hard_negatives import Chosen, Selection


class Tally:
    """Counts and scores of the mined pairs of all blocks, for the outcome line."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._counts = dict.fromkeys(
            ("positives_passed_over", "too_near_a_positive", "queries_with_fewer", "queries_with_none"), 0
        )
        self._without_scored_positive = 0
        self._scores = {"positives": _Summary(), "mined": _Summary()}

    def add_positives(self, scores: Float64[np.ndarray, "positives"], limits: Float64[np.ndarray, "queries"]) -> None:
        self._scores["positives"].add(scores)
        self._without_scored_positive += int(np.isneginf(limits).sum())

    def add(self, chosen: Chosen, scores: Float64[np.ndarray, "queries k"]) -> None:
        taken = chosen.new.sum(axis=1)
        self._counts["positives_passed_over"] += int(chosen.positive.sum())
        self._counts["too_near_a_positive"] += int(chosen.beyond_margin.sum())
        self._counts["queries_with_fewer"] += int((taken < self._selection.per_query).sum())
        self._counts["queries_with_none"] += int((taken == 0).sum())
        self._scores["mined"].add(scores[chosen.new])

    def outcome(self) -> dict:
        """Returns the counts and the summaries of scores.

        positives_passed_over: known positives in the rankings. too_near_a_positive: pairs that the margin excluded.
        queries_with_fewer: queries that got fewer than per_query negatives; queries_with_none (no negative) is
        included. queries_without_scored_positive: queries without a scored positive, for which no margin can be
        measured; they get no negatives.
        """
        margin = {"queries_without_scored_positive": self._without_scored_positive}
        scores = {name: summary.outcome() for name, summary in self._scores.items()}
        return {**self._counts, **(margin if self._selection.has_margin else {}), "scores": scores}


class _Summary:
    def __init__(self) -> None:
        self._count, self._sum, self._least, self._greatest = 0, 0.0, np.inf, -np.inf

    def add(self, scores: Float64[np.ndarray, "some"]) -> None:
        if scores.size:
            self._count += scores.size
            self._sum += float(scores.sum())
            self._least = min(self._least, float(scores.min()))
            self._greatest = max(self._greatest, float(scores.max()))

    def outcome(self) -> dict[str, float] | None:
        if not self._count:
            return None
        return {"mean": round(self._sum / self._count, 4), "least": self._least, "greatest": self._greatest}
