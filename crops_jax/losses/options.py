"""What the losses have in common beside their formula: weights, normalisation, and which pairs take part."""

from dataclasses import dataclass
from typing import Literal

from crops_jax.labels import Level

Normalization = Literal["anchors", "queries", "sum"]


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Raises ValueError for a field that is not what its line says."""

    normalization: Normalization = "anchors"
    """"anchors": weighted mean over all terms of the batch. "queries": mean over each query's terms first, then over
    the queries that have one. "sum": plain weighted sum."""
    level_weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """Weight of a term by the level of its document, levels 1 to 5; not negative."""
    ignore_margin: float | None = None
    """Other queries' documents that score at least the query's best positive (level 4 or 5) less this margin are
    ignored: they are likely false negatives (positive-aware mining of NV-Retriever, arXiv 2407.15831; margin of
    GISTEmbed, arXiv 2402.16829). None: none is."""

    def __post_init__(self) -> None:
        if self.normalization not in ("anchors", "queries", "sum"):
            raise ValueError(f"normalization must be 'anchors', 'queries' or 'sum', found {self.normalization!r}")
        levels = max(Level)
        if len(self.level_weights) != levels or not all(0 <= weight < float("inf") for weight in self.level_weights):
            raise ValueError(f"level_weights must be {levels} numbers >= 0, found {self.level_weights}")
        if self.ignore_margin is not None and not abs(self.ignore_margin) < float("inf"):
            raise ValueError(f"ignore_margin must be finite or None, found {self.ignore_margin}")
