"""Why CroPS does or does not beat FS-LR: the measurements that exist of its labels and of its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crops_jax.pages.page import share
from launch.comparison.evidence.anchors import FIGURE, share_below_positives
from launch.comparison.measures import MAIN
from launch.comparison.presentation.claims import HELD, verdict_of
from launch.comparison.results.setting import Setting
from launch.comparison.results.statistics import Difference
from launch.comparison.results.table import Comparison, Pair
from launch.comparison.systems import ALL_PERSPECTIVES

_CROPS, _BASELINE, _AT_4 = "crops", "fs_lr", "crops_query_level_at_4"
_TOWERS = "transformer"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The positives of one source of labels."""

    name: str
    positives: int
    new_share: float | None
    """The share of its positives that no other source has."""
    not_clicked_share: float | None
    """The share of its positives that were not clicked for the query in the search log."""
    precision: float | None
    """The share of its positives that is relevant by the truth of a generated world."""


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """The measurements that explain the difference between CroPS and FS-LR."""

    not_beaten: Sequence[str] = ()
    """The labels of the metrics in which CroPS is not shown to beat FS-LR."""
    sources: Sequence[Source] = ()
    low_anchors: Mapping[str, float] = field(default_factory=dict)
    """System -> the share of the anchors that are of levels 1 to 3, whatever their weight in the loss."""
    level_five: Mapping[str, Difference] = field(default_factory=dict)
    """Metric -> the difference of CroPS with the query level at 5 to the same at 4."""

    @property
    def sentences(self) -> list[str]:
        """One sentence for each measurement."""
        found = []
        if known := [source for source in self.sources if source.precision is not None]:
            listed = ", ".join(f"{source.name} {share(source.precision)}" for source in known)
            found.append(f"The precision of the positives by the truth of the world: {listed}.")
        if new := [source for source in self.sources if source.name != "search_log"]:
            listed = ", ".join(
                f"{source.name} {share(source.not_clicked_share)} of {source.positives:,}" for source in new
            )
            found.append(f"The share of the positives that the search log does not have as clicks: {listed}.")
        if self.low_anchors:
            listed = ", ".join(f"{system} {share(value)}" for system, value in self.low_anchors.items())
            found.append(
                "The share of the anchors that are of levels 1 to 3, which order the funnel and add no positive: "
                f"{listed}. Anchors are counted here, whatever weight the loss gives to their level."
            )
        found += [
            f"The query level at level 5 instead of 4 changes {MAIN[metric]} by {one.estimate.value:+.3f} "
            f"({one.low_holm:+.3f} to {one.high_holm:+.3f}; {one.verdict})."
            for metric, one in self.level_five.items()
        ]
        return found


def reasons_of(comparison: Comparison, setting: Setting, metrics: Sequence[str]) -> Reasons:
    """Returns the measurements; what was not measured is left out."""
    not_beaten, level_five = [], {}
    for metric in metrics:
        found = comparison.difference(Pair(_CROPS, _TOWERS, _BASELINE, _TOWERS, metric))
        if found is not None and verdict_of(found) != HELD:
            not_beaten.append(MAIN[metric])
        found = comparison.difference(Pair(_CROPS, _TOWERS, _AT_4, _TOWERS, metric))
        if found is not None:
            level_five[metric] = found
    low_anchors = {}
    for one in comparison.trained:
        if one.system in (_CROPS, _BASELINE) and one.architecture == _TOWERS:
            value = share_below_positives({name: one.figure(name) for name in (f"{FIGURE}_{n}" for n in range(1, 6))})
            low_anchors |= {} if value is None else {one.system: value}
    return Reasons(
        not_beaten=not_beaten, sources=_sources(setting.labels), low_anchors=low_anchors, level_five=level_five
    )


def _sources(labels: Mapping[str, Any]) -> list[Source]:
    precision = labels.get("precision_by_truth") or {}
    gains = labels.get("perspectives", {})
    names = [*(name for name in ALL_PERSPECTIVES if name in gains), *sorted(gains.keys() - set(ALL_PERSPECTIVES))]
    return [
        Source(
            name=name,
            positives=gains[name]["positives"],
            new_share=gains[name]["only_here"] / gains[name]["positives"] if gains[name]["positives"] else None,
            not_clicked_share=gains[name].get("not_clicked_share"),
            precision=precision.get(name, {}).get("value"),
        )
        for name in names
    ]
