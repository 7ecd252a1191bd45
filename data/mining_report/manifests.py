"""The facts about mining that data.report reads from the manifests and alpha_sweep.json of a label table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crops_jax.artifacts.json_fields import read_json
from crops_jax.artifacts.lineage import line, manifest_or_none
from crops_jax.errors import InputError
from data.labels.assign_levels import POSITIVE_SOURCES
from data.mining_report.charts import words

_DISCRIMINATOR = {
    "kind": "Kind",
    "from": "Taken from",
    "source": "Fitted on",
    "pairs": "Pairs",
    "latest_time": "Latest search read",
    "unsplit_judgements": "Judgements without a split",
    "calibrated_on": "Calibrated on",
    "ece_before": "ECE before calibration",
    "ece_after": "ECE after calibration",
    "relevant_grade": "Minimum grade of a relevant judgement",
    "alpha": "Alpha",
    "random_pairs_passing": "Share of random pairs above alpha",
    "populations": "Pairs by origin",
}
_STEPS = {
    "users_set_aside": "users set aside, with more searches an hour than allowed",
    "searches_set_aside": "searches of these users",
    "reformulations": "reformulations",
    "later_searches_left_out": "later searches beyond the maximum for one search",
    "users_with_searches_left_out": "users who have such searches",
    "query_pairs": "distinct pairs of query and reformulation",
    "similar_query_pairs": "of these, similar enough",
    "candidates_of_any_similarity": "documents taken after any reformulation, distinct pairs",
    "candidates": "candidates that the discriminator scored, distinct pairs",
    "passing": "of these, above alpha",
}


class AlphaSweep(NamedTuple):
    """The alpha that mining used, and by perspective the number of passing candidates at others: (alpha, passing)."""

    alpha: float
    steps: dict[str, list[tuple[float, int]]]


class Mined(NamedTuple):
    """The facts about mining in the manifests; all are empty for a table that data.mine did not write."""

    arguments: Mapping[str, Any]
    """The arguments of data.mine."""
    outcome: Mapping[str, Any]
    """The outcome of data.mine: counts, skipped perspectives, the discriminator."""
    known: bool
    """Whether a manifest of data.mine was read."""
    program: str | None
    """The program that wrote the table."""
    written_elsewhere: bool
    """Whether the knowledge documents came from a directory other than the logs."""
    made: Mapping[str, Any]
    """The outcome of launch.mine_negatives, if it wrote the table; otherwise empty."""

    @property
    def skipped(self) -> dict[str, str]:
        """Perspective -> the reason why it could not be mined."""
        return dict(self.outcome.get("skipped", {}))

    def accounted(self, positives: Mapping[str, int]) -> dict[str, str]:
        """Returns the result of each perspective in words, also of those without positives.

        positives: perspective -> the number of its positives, for perspectives that have any.
        """
        states = {}
        for source in dict.fromkeys([*POSITIVE_SOURCES, *positives]):
            if source in positives:
                states[source] = f"{positives[source]:,} positives"
            elif source in self.skipped:
                states[source] = f"skipped: {self.skipped[source]}"
            elif not self.known:
                states[source] = "no positives"
            elif not self._asked_for(source):
                states[source] = "not requested"
            else:
                states[source] = "mined, without a positive"
        return states

    def _asked_for(self, source: str) -> bool:
        if source == "judgements":
            return bool(self.arguments.get("judgements_as_labels"))
        asked = self.arguments.get("perspectives")
        return asked is None or source in asked

    def discriminator(self) -> list[tuple[str, str]]:
        """Returns the known facts about the discriminator as names and values; empty if none was used."""
        about = {name: value for name, value in (self.outcome.get("discriminator") or {}).items() if value is not None}
        others = {name: words(name).capitalize() for name in sorted(about) if name not in _DISCRIMINATOR}
        return [(text, _written(about[name])) for name, text in (_DISCRIMINATOR | others).items() if name in about]

    def precision(self) -> Mapping[str, Any] | None:
        """Returns the precision of each source by judgements, as data.mine measured it; None without judgements."""
        return self.outcome.get("precision")

    @property
    def random_pairs_passing(self) -> float | None:
        """The share of random query-document pairs above alpha; None if it was not measured."""
        return (self.outcome.get("discriminator") or {}).get("random_pairs_passing")

    def funnel(self) -> list[tuple[str, str, int]]:
        """Returns (perspective, step, count) for the steps of mining that lead to the positives that theta accepted."""
        rows = []
        for source in POSITIVE_SOURCES:
            counts = self.outcome.get(source)
            if isinstance(counts, Mapping):
                others = {name: words(name) for name in sorted(counts) if name not in _STEPS}
                rows += [(source, text, counts[name]) for name, text in (_STEPS | others).items() if name in counts]
        return [row for row in rows if isinstance(row[2], int)]

    def set_aside(self) -> list[tuple[str, str, int]]:
        """Returns (table, reason, number) of the rows of the logs that broke a rule and that mining left out."""
        counts = self.outcome.get("quarantined", {})
        return [(table, reason, number) for table, reasons in counts.items() for reason, number in reasons.items()]

    def negatives(self) -> list[tuple[str, str]]:
        """Returns the outcome of mining negatives with a model, as names and values."""
        facts = [
            (words(name).capitalize(), _written(value))
            for name, value in self.made.items()
            if isinstance(value, int | float | str)
        ]
        if (rate := self.made.get("false_negatives")) is not None:
            share = (
                "not known" if rate["rate"] is None else f"{rate['rate']:.4f} ({rate['low']:.4f} to {rate['high']:.4f})"
            )
            facts.append(("Share of them that is relevant after all", f"{share}; {rate['judged']:,} were judged"))
        return facts


def read_mined(labels: Path) -> Mined:
    """Reads the facts about mining from the manifest of labels, or of the labels from which they were made."""
    written_by = manifest_or_none(labels)
    if written_by is None:
        return Mined({}, {}, False, None, False, {})
    writer = written_by["program"]
    made = written_by.get("mined", {}) if writer == "launch.mine_negatives" else {}
    manifest = next((link for link in line(written_by, "labels") if link["program"] == "data.mine"), None)
    if manifest is None:
        return Mined({}, {}, False, writer, False, made)
    written = "knowledge_documents" in manifest["inputs"]
    return Mined(manifest["arguments"], manifest.get("mined", {}), True, writer, written, made)


def read_alpha_sweep(labels: Path) -> AlphaSweep | None:
    """Reads the sweep of alpha beside labels; None if there is no such file. Raises InputError for a broken file."""
    file = labels / "alpha_sweep.json"
    if not file.exists():
        return None
    sweep = read_json(file, remedy="mine again")
    try:
        steps = {
            source: [(float(step["alpha"]), int(step["passing"])) for step in steps]
            for source, steps in sweep.items()
            if source != "alpha" and steps
        }
        return AlphaSweep(float(sweep["alpha"]), steps)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not a sweep of alpha ({error!r}); mine the labels again") from error


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{words(name)} {_written(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if type(value) is int else str(value)
