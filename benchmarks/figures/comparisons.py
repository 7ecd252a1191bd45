"""Tables of the comparison of systems, from the committed results of its cells in docs/results.

launch.compare's own code reads the results and makes the means, intervals and verdicts. A folder that is not there
gives no table.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.figures.markdown import ABSENT, amount, number, signed, table
from benchmarks.figures.quality import target_rows
from benchmarks.figures.results import FiguresError
from crops_jax.errors import InputError
from data.world.targets import TARGETS, compare_with_targets
from launch.comparison.arguments import CompareArguments
from launch.comparison.presentation.claims import (
    FEWEST_SEEDS,
    HELD,
    NOT_RUN,
    NOT_SHOWN,
    NOT_TESTABLE,
    REFUTED,
    RETRIEVES_MORE,
    TOO_FEW_SEEDS,
    Judged,
    Part,
    further_pairs,
    judge,
    metric_label,
)
from launch.comparison.presentation.notes import tuning_notes
from launch.comparison.presentation.page import groups_of
from launch.comparison.real.settings import REAL_SETS
from launch.comparison.real.systems import catalogue_of
from launch.comparison.results.files import stored_results, stored_tuning
from launch.comparison.results.setting import Setting, read_setting
from launch.comparison.results.statistics import Difference, Estimate, paired, resampled_columns, two_sided_p
from launch.comparison.results.table import RATES_DIFFER, WORLD, Comparison, Pair, Trained, compare_results
from launch.comparison.systems import GROUPS

FOLDER = Path(__file__).parents[2] / "docs" / "results"
SAMPLES = CompareArguments.bootstrap_samples
"""The number of bootstrap samples, the default of launch.compare."""

_OTHER_WORLDS = ("generated_world_seed_1", "generated_world_error_30", "generated_world_error_60")
"""A world of another seed, and those whose simulated language model errs in 30 % and in 60 % of its documents."""
_AT_RATES = {"0.5": "generated_world_rate_half", "1": "generated_world", "2": "generated_world_rate_twice"}
"""The multiple of the learning rate -> the folder of the results at it."""
_COMPARED_AT_RATES = ("nce", "fs_lr", "crops_query_system")
"""The systems that are compared with CroPS at each of the rates."""
_HEADLINE = ("bm25", "nce", "trisampler", "fs_lr", "crops")
"""The systems of README.md: BM25, the plain encoder, the strongest one with mined negatives (in CT), the baseline of
CroPS, and CroPS."""
_GAINS = ("positives", "only_here")
_SIGNIFICANT = 0.05
_SAMPLES_OF_SEEDS = 2000
_REAL_SETS = ("bestbuy", "scifact", "icecat", "trec_session")
_REAL_SYSTEMS = ("bm25", "untrained", "sentence_transformers", "nce", "graded", "fusion")
"""The columns and the rows of the table of README.md on real data."""
_VERDICTS = (HELD, REFUTED, NOT_SHOWN, RATES_DIFFER, TOO_FEW_SEEDS, NOT_RUN, NOT_TESTABLE)


class Compared(NamedTuple):
    """A folder of results: what its cells have in common, and what they say."""

    setting: Setting
    comparison: Comparison
    claims: list[Judged]
    """The claims of the paper; none for real data."""
    tuning: dict[str, dict[float, float]]
    """The dev recalls of the learning rates; see stored_tuning."""


@functools.cache
def compared(name: str, folder: Path = FOLDER) -> Compared | None:
    """The comparison of docs/results/NAME, or None where there is none. Raises FiguresError for a damaged one."""
    results = folder / name
    if not results.is_dir():
        return None
    try:
        setting = read_setting(results)
        found = stored_results(results, among=setting.inputs)
        catalogue = catalogue_of(setting.arguments.get("real", ""))
        comparison = compare_results(
            found,
            reference=catalogue.reference,
            samples=SAMPLES,
            pairs=further_pairs(catalogue),
            catalogue=catalogue,
        )
        tuning = stored_tuning(results, found)
    except InputError as error:
        raise FiguresError(str(error)) from error
    return Compared(setting, comparison, judge(comparison) if catalogue is WORLD else [], tuning) if found else None


def headline(found: Compared) -> str:
    """The table of README.md: some systems, and the claims of the paper by verdict."""
    chosen = [one for one in _members(found.comparison) if one.system in _HEADLINE and one.architecture != "hashed"]
    lists = [
        f"- **{verdict.capitalize()} ({len(texts)}):** {' '.join(f'{text}.' for text in _folded(texts))}"
        for verdict in _VERDICTS
        if (texts := [_with_held_parts(one) for one in found.claims if one.verdict == verdict])
    ]
    origin = (
        f"A generated world. {_described(found, chosen)} These are {amount(len(found.claims))} claims, most of them "
        "the paper's. A claim is about CT and QR unless it says otherwise; "
        "[Comparison](docs/comparison.md#claims-of-the-paper) has the differences that decide on each:"
    )
    return "\n\n".join([_table(found.comparison, chosen), origin, "\n".join(lists)])


def real_headline(*found: Compared) -> str:
    """The table of README.md on real data: the first metric of each set with its number of queries."""
    columns = [(one, next(iter(one.comparison.catalogue.metrics))) for one in found]
    header, rows = ["system"], {name: [f"`{name}`"] for name in _REAL_SYSTEMS}
    for one, metric in columns:
        means = {key[0]: mean for key, mean in one.comparison.means.items() if key[2] == metric}
        queries = amount(next(iter(means.values())).queries)
        header.append(
            f"`{one.setting.arguments['real']}`, {one.comparison.catalogue.metrics[metric]}, {queries} queries"
        )
        for name, row in rows.items():
            row.append(_interval(means[name]) if name in means else ABSENT)
    return table(header, list(rows.values()))


def main_table(found: Compared) -> str:
    """All systems of the main table, sorted by the first metric, and how they were measured."""
    return f"{_table(found.comparison, _members(found.comparison), with_seeds=True)}\n\n{_described(found)}"


def ablations(found: Compared) -> str:
    """One table for each ablation: the perspectives, the labels and the losses."""
    parts = []
    for group, heading in GROUPS.items():
        members = [one for one in _members(found.comparison, group) if one.architecture == "transformer"]
        if group != "systems" and len(members) > 1:
            parts.append(f"{heading}:\n\n{_table(found.comparison, members, with_seeds=True)}")
    return "\n\n".join(parts)


def table_with_differences(found: Compared) -> str:
    """All systems of a comparison, their differences to its reference, and those of further pairs."""
    comparison = found.comparison
    catalogue, members = comparison.catalogue, _members(comparison, group=None)

    def row(name: str, metric: str, difference: Difference) -> list[str]:
        queries = amount(difference.estimate.queries)
        return [name, catalogue.metrics[metric], _difference(difference), queries, difference.verdict]

    rows = [
        row(_name(one), metric, difference)
        for one in members
        for metric in catalogue.metrics
        if (difference := comparison.differences.get((*one.key, metric))) is not None
    ]
    rows += [
        row(f"`{pair.system}` minus `{pair.other}`", pair.metric, difference)
        for pair in catalogue.pairs
        if (difference := comparison.difference(pair)) is not None
    ]
    header = ["system", "metric", f"difference to `{comparison.reference}`, after Holm's correction", "queries"]
    shown = _table(comparison, members, with_seeds=True)
    left_out = "".join(f" Left out: {name} ({reason})." for name, reason in found.setting.left_out.items())
    described = " ".join([_described(found) + left_out, *tuning_notes(found.tuning)])
    return "\n\n".join([shown, table([*header, "verdict"], rows), described])


def claims_table(found: Compared, *, with_not_run: bool = True) -> str:
    """The claims of the paper with the differences that decide on them, and their verdicts."""
    rows = [
        [one.claim.text, one.evidence or "; ".join(map(_evidence, one.parts)) or ABSENT, one.verdict]
        for one in found.claims
        if with_not_run or one.verdict != NOT_RUN
    ]
    return table(["claim", "difference, with the interval after Holm's correction", "verdict"], rows)


def targets(found: Compared) -> str:
    """The figures of BM25 and NCE that the world was to have, and those that the cells have."""
    means = {
        f"{system}_{metric}": mean.value
        for (system, tower, metric), mean in found.comparison.means.items()
        if tower != "hashed"
    }
    return target_rows(compare_with_targets({name: means.get(name) for name in TARGETS}))


def label_sources(found: Compared) -> str:
    """The sources of the labels of all perspectives, and their precision; nothing where it is not stored."""
    if not found.setting.labels:
        return ""
    gains, labels = found.setting.labels["perspectives"], found.setting.labels
    by_judges = labels.get("precision", {}).get("sources", {})
    by_truth = labels.get("precision_by_truth", {})
    header = ["source", "positives", "of no other source"]
    header += ["relevant by judges before the discriminator", "after it"] if by_judges else []
    header += ["relevant by the truth"] if by_truth else []
    rows = []
    for name in [*gains, *sorted((by_judges.keys() | by_truth.keys()) - gains.keys())]:
        row = [f"`{name}`", *(amount(gains[name][key]) if name in gains else ABSENT for key in _GAINS)]
        if by_judges:
            row += [_measured(by_judges.get(name, {}).get(stage)) for stage in ("before", "after")]
        rows.append([*row, _measured(by_truth.get(name))] if by_truth else row)
    return table(header, rows)


def _measured(precision: Mapping[str, Any] | None) -> str:
    """A precision with its interval and the number of pairs that it rests on."""
    if precision is None or precision["value"] is None:
        return ABSENT
    pairs = amount(precision.get("judged", precision["pairs"]))
    if "low" not in precision:
        return f"{number(precision['value'])} of {pairs}"
    return f"{number(precision['value'])} ({number(precision['low'])} to {number(precision['high'])}) of {pairs}"


def seeds_apart(found: Compared) -> str:
    """How often two runs of one system that differ in their seed alone have a significant difference over queries."""
    rows = []
    for metric, label in found.comparison.catalogue.metrics.items():
        pairs = [
            (one[np.newaxis], other[np.newaxis])
            for trained in found.comparison.trained
            if trained.has_values(metric)
            for one, other in itertools.combinations(trained.values(metric), 2)
        ]
        if pairs:
            resampled = resampled_columns([paired(pair) for pair in pairs], samples=_SAMPLES_OF_SEEDS)
            significant = sum(two_sided_p(means) < _SIGNIFICANT for means in resampled)
            expected = number(_SIGNIFICANT * len(pairs), digits=1)
            rows.append([label, amount(len(pairs)), amount(significant), expected])
    return table(["metric", "pairs of runs", f"with p < {_SIGNIFICANT}", "expected from queries alone"], rows)


def at_rates(*found: Compared) -> str:
    """The differences of CroPS to some systems at each learning rate of _AT_RATES, and whether all have one sign."""
    metrics = found[0].comparison.catalogue.metrics
    rows = []
    for system, (metric, label) in itertools.product(_COMPARED_AT_RATES, metrics.items()):
        pair = Pair(WORLD.reference, "transformer", system, "transformer", metric)
        values = [at.estimate for one in found if (at := one.comparison.difference(pair))]
        if len(values) == len(found):
            shown = (f"{signed(one.value)} ({signed(one.low)} to {signed(one.high)})" for one in values)
            one_sign = len({one.value > 0 for one in values}) == 1
            rows.append([f"`{WORLD.reference}` minus `{system}`", label, *shown, "yes" if one_sign else "no"])
    header = ["difference", "metric", *(f"{rate} times the rate" for rate in _AT_RATES), "same sign"]
    seeds = [max(len(one.results) for one in at.comparison.trained) for at in found]
    told = ", ".join(f"{count} at {rate}" for count, rate in zip(seeds, _AT_RATES, strict=True))
    note = "The intervals are those of 95 % over queries, without Holm's correction. The numbers of seeds are"
    return f"{table(header, rows)}\n\n{note} {told} times the rate."


COMPARISONS: Mapping[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "generated_world_headline": (("generated_world",), headline),
    "generated_world": (("generated_world",), main_table),
    **{f"{name}_labels": ((name,), label_sources) for name in ("generated_world", "bestbuy", "trec_session")},
    "generated_world_seeds": (("generated_world",), seeds_apart),
    "generated_world_targets": (("generated_world",), targets),
    "real_headline": (_REAL_SETS, real_headline),
    "generated_world_ablations": (("generated_world",), ablations),
    "generated_world_claims": (("generated_world",), claims_table),
    "generated_world_seed_1_claims": (
        ("generated_world_seed_1",),
        functools.partial(claims_table, with_not_run=False),
    ),
    "generated_world_rates": (tuple(_AT_RATES.values()), at_rates),
    **{name: ((name,), table_with_differences) for name in _OTHER_WORLDS},
    **{f"real_{name}": ((name,), table_with_differences) for name in REAL_SETS},
}
"""The name in a marker -> the folders in docs/results, and the function that makes the table of their comparisons."""


def comparison_markdown(name: str, *, folder: Path = FOLDER) -> str:
    """The table of a name in COMPARISONS; nothing where one of its results is not there."""
    folders, render = COMPARISONS[name]
    found = [compared(results, folder) for results in folders]
    return "" if None in found else render(*found)


def _members(comparison: Comparison, group: str | None = "systems") -> list[Trained]:
    """The systems of a table (None: all), best first by its first metric."""
    systems, metrics = comparison.catalogue.systems, comparison.catalogue.metrics
    members = [one for one in comparison.trained if group is None or group in groups_of(one.system, among=systems)]

    def value(one: Trained) -> float:
        return next((mean.value for metric in metrics if (mean := comparison.means.get((*one.key, metric)))), 0.0)

    return sorted(members, key=lambda one: -value(one))


def _table(comparison: Comparison, members: list[Trained], *, with_seeds: bool = False) -> str:
    metrics = {key: label for key, label in comparison.catalogue.metrics.items() if key in comparison.metrics}
    header = ["system", *(["seeds"] if with_seeds else []), *metrics.values()]
    rows = []
    for one in members:
        seeds = [amount(len(one.results))] if with_seeds else []
        cells = (_cell(comparison, one, metric, with_spread=with_seeds) for metric in metrics)
        rows.append([_name(one), *seeds, *cells])
    return table(header, rows)


def _name(one: Trained) -> str:
    return f"`{one.system}`, hashed" if one.architecture == "hashed" else f"`{one.system}`"


def _cell(comparison: Comparison, one: Trained, metric: str, *, with_spread: bool = False) -> str:
    mean = comparison.means.get((*one.key, metric))
    if mean is None:
        return ABSENT
    return _interval(mean, spread=mean.seed_spread if with_spread else None)


def _interval(mean: Estimate, *, spread: float | None = None) -> str:
    told = "" if spread is None else f"; sd {number(spread)}"
    return f"{number(mean.value)} ({number(mean.low)} to {number(mean.high)}{told})"


def _with_held_parts(one: Judged) -> str:
    """The text of a claim, with the metrics in which it is held where it is not in all."""
    held = [part for part in one.parts if part.verdict == HELD]
    if one.verdict == HELD or not held:
        return one.claim.text
    return f"{one.claim.text} (shown in {' and '.join(metric_label(part.pair.metric) for part in held)} alone)"


def _folded(texts: Sequence[str]) -> list[str]:
    """The texts of claims, those that compare CroPS with one other system joined into the first of them."""
    others = [text.removeprefix(RETRIEVES_MORE) for text in texts if text.startswith(RETRIEVES_MORE)]
    rest = [text for text in texts if not text.startswith(RETRIEVES_MORE)]
    if not others:
        return rest
    return [RETRIEVES_MORE + " and ".join(filter(None, [", ".join(others[:-1]), others[-1]])), *rest]


def _evidence(part: Part) -> str:
    label = metric_label(part.pair.metric)
    return f"{label} not measured" if part.found is None else f"{label} {_difference(part.found)}"


def _difference(found: Difference) -> str:
    return f"{signed(found.estimate.value)} ({signed(found.low_holm)} to {signed(found.high_holm)})"


def _described(found: Compared, shown: Sequence[Trained] = ()) -> str:
    """The seeds of the systems shown (all, if none is given), the command, the wall time and the machine."""
    cells = [result for one in found.comparison.trained for result in one.results]
    shown = shown or found.comparison.trained
    seeds = sorted({len(one.results) for one in shown if one.architecture != "none"})
    one_seed = [f"`{one.system}`" for one in shown if one.architecture == "none" and max(seeds, default=1) > 1]
    alone = f" (one for {', '.join(one_seed)})" if one_seed else ""
    hours = (found.setting.shared_seconds + sum(one.conditions.seconds for one in cells)) / 3600
    machines = sorted({f"{one.conditions.processor}, {one.conditions.cores} cores" for one in cells})
    packages = sorted({", ".join(f"{key} {value}" for key, value in one.conditions.packages.items()) for one in cells})
    several = " to ".join(map(str, dict.fromkeys([*seeds[:1], *seeds[-1:]])))
    return (
        f"Means over {several} seed{'' if several == '1' else 's'}{alone}, with 95 % bootstrap intervals over queries; "
        f"`{found.setting.command}`; "
        f"{amount(len(cells))} cells, whose times add up to {number(hours, digits=1)} hours on {'; '.join(machines)}, "
        f"with {'; '.join(packages)}."
        + (f" With fewer than {FEWEST_SEEDS} seeds the verdicts are provisional." if min(seeds) < FEWEST_SEEDS else "")
        + _chosen_rates(found.comparison)
    )


def _chosen_rates(comparison: Comparison) -> str:
    """How many systems chose each learning rate of the grid; nothing where there was no choice."""
    counts = Counter(factor for one in comparison.trained if (factor := one.figure("learning_rate_factor")))
    if len(counts) < 2:
        return ""
    shares = ", ".join(f"{count} chose {factor:g}" for factor, count in sorted(counts.items()))
    return f" Of the multiples of the learning rate in the tuning grid, {shares} (systems, on dev)."
