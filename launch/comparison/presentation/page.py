"""The page of a comparison: pictures with intervals, claims with verdicts, tables of systems and ablations, an example.

TABLE/report.html  the page
TABLE/main.svg     the picture of the main table alone, which a README can show
TABLE/claims.csv   the claims of the paper with the comparisons that decide on them
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crops_jax.artifacts import write_text
from crops_jax.pages.interval_plot import Row, interval_plot
from crops_jax.pages.page import write_page
from crops_jax.pages.standalone import standalone
from launch.comparison.evidence.example import NARROWER, RULE, WIDER, Example
from launch.comparison.presentation.claims import CLAIMS_FILE, FEWEST_SEEDS, claims_csv, judge, metric_label
from launch.comparison.presentation.paper_figures import beside_the_paper
from launch.comparison.presentation.published import TRAINING_HOURS
from launch.comparison.presentation.reasons import reasons_of
from launch.comparison.results.setting import Setting
from launch.comparison.results.statistics import Estimate
from launch.comparison.results.table import WORLD, Comparison, Trained
from launch.comparison.systems import GROUPS, SYSTEMS, System

PAGE, PICTURE = "report.html", "main.svg"
_TEMPLATE = Path(__file__).with_name("comparison.html.j2")
_LABEL_WIDTH = 152
_REFERENCE_COLOUR, _LEARNT_COLOUR, _OTHER_COLOUR = 0, 2, 5
_ARCHITECTURES = {"transformer": "Transformer towers", "hashed": "Towers of hashed IDs"}
_PICTURE_NOTE = "Mean over seeds and queries with the 95 % bootstrap interval over queries"
_TEST_WORDS = {"hidden_relevant": "relevant documents that no search showed", "ct": "documents that were clicked later"}

Charts = list[tuple[str, str]]


def write_comparison_page(
    table: Path,
    comparison: Comparison,
    setting: Setting,
    example: Example | None,
    *,
    manifest: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """Writes the page, the picture and the claims into TABLE.

    Args:
      table: the directory of the comparison.
      comparison: its finished part.
      setting: what all of its cells have in common.
      example: the query whose results widen, if there is one.
      manifest: the manifest that the page embeds.
      notes: sentences that the user should read before the figures.
    """
    known, labels = comparison.catalogue.systems, comparison.catalogue.metrics
    measured = [metric for metric in labels if metric in comparison.metrics]
    of_the_paper = comparison.catalogue is WORLD
    charts = _charts(comparison, measured)
    judged = judge(comparison) if of_the_paper else []
    write_text(table / CLAIMS_FILE, claims_csv(judged))
    for heading, pictures in charts[:1]:
        title = f"Comparison of systems, {heading.lower()}"
        write_text(table / PICTURE, standalone(pictures, title=title, note=_PICTURE_NOTE))
    write_page(
        table / PAGE,
        _TEMPLATE,
        manifest=manifest,
        notes=notes,
        reference=comparison.reference,
        lead=comparison.catalogue.lead,
        meanings=comparison.catalogue.meanings,
        of_the_paper=of_the_paper,
        metrics={metric: labels[metric] for metric in measured},
        charts=[(heading, [(label, Markup(chart)) for label, chart in pictures]) for heading, pictures in charts],
        first_metric=labels[measured[0]] if measured else "",
        claims=judged,
        metric_label=metric_label,
        groups=_groups(comparison, measured),
        published=beside_the_paper(comparison, measured) if of_the_paper else [],
        reasons=reasons_of(comparison, setting, measured) if of_the_paper else None,
        example=example,
        example_rule=RULE,
        example_systems=(WIDER, NARROWER),
        example_test=_TEST_WORDS.get(example.test, example.test) if example else "",
        family=comparison.family,
        fewest_seeds=FEWEST_SEEDS,
        systems=[known[name] for name in dict.fromkeys(one.system for one in comparison.trained) if name in known],
        queries={metric: _queries(comparison, metric) for metric in measured},
        command=setting.command,
        conditions=_conditions(comparison, setting),
    )


def _charts(comparison: Comparison, metrics: Sequence[str]) -> list[tuple[str, Charts]]:
    """Returns the pictures of each architecture. All pictures have the order of the first metric, best system first.

    Systems without a tower are in the pictures of each architecture.
    """
    found = []
    for architecture, heading in _ARCHITECTURES.items():
        shown = [one for one in comparison.trained if one.architecture in (architecture, "none")]
        shown = [one for one in shown if "systems" in groups_of(one.system, among=comparison.catalogue.systems)]
        if not any(one.architecture == architecture for one in shown):
            continue
        ordered = sorted(shown, key=lambda one: -_value(comparison, one, metrics))
        pictures = []
        for metric in metrics:
            means = {one.system: mean for one in ordered if (mean := comparison.means.get((*one.key, metric)))}
            if means:
                rows = [_row(comparison, name, mean) for name, mean in means.items()]
                label = comparison.catalogue.metrics[metric]
                title = f"{label}, {heading.lower()}"
                pictures.append((label, interval_plot(rows, title=title, label_width=_LABEL_WIDTH)))
        if pictures:
            found.append((heading, pictures))
    return found


def _value(comparison: Comparison, one: Trained, metrics: Sequence[str]) -> float:
    """Returns the value of the first metric that the system has."""
    return next((mean.value for metric in metrics if (mean := comparison.means.get((*one.key, metric)))), 0.0)


def _row(comparison: Comparison, system: str, mean: Estimate) -> Row:
    known = comparison.catalogue.systems.get(system)
    colour = _LEARNT_COLOUR if known is None or known.trained else _OTHER_COLOUR
    return Row(
        system,
        mean.value,
        mean.low,
        mean.high,
        _REFERENCE_COLOUR if system == comparison.reference else colour,
    )


def _groups(comparison: Comparison, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the tables of the page that have a system, each with one row for each system and architecture."""
    groups = []
    for group, heading in GROUPS.items():
        members = [
            one for one in comparison.trained if group in groups_of(one.system, among=comparison.catalogue.systems)
        ]
        if group != "systems":
            members = [one for one in members if one.architecture == "transformer"]
        if len(members) > 1 or (members and group == "systems"):
            rows = [_table_row(comparison, one, metrics) for one in members]
            groups.append({"heading": heading, "rows": rows, "with_cost": group == "losses"})
    return groups


def groups_of(system: str, *, among: Mapping[str, System] = SYSTEMS) -> tuple[str, ...]:
    """Returns the tables that show a system; one of another version is in the main table."""
    return among[system].groups if system in among else ("systems",)


def _table_row(comparison: Comparison, one: Trained, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "system": one.system,
        "architecture": one.architecture,
        "seeds": len(one.results),
        "cells": [
            {
                "mean": comparison.means.get((*one.key, metric)),
                "difference": comparison.differences.get((*one.key, metric)),
            }
            for metric in metrics
        ],
        "step_seconds": one.figure("step_seconds"),
        "hours": TRAINING_HOURS.get(one.system),
    }


def _queries(comparison: Comparison, metric: str) -> int:
    return next(mean.queries for key, mean in comparison.means.items() if key[2] == metric)


def _conditions(comparison: Comparison, setting: Setting) -> dict[str, Any]:
    """Returns what the cells were measured on: the hours of all cells, the processors and the packages."""
    cells = [result.conditions for one in comparison.trained for result in one.results]
    return {
        "cells": len(cells),
        "hours": sum(one.seconds for one in cells) / 3600,
        "shared_hours": setting.shared_seconds / 3600,
        "processors": sorted({f"{one.processor}, {one.cores} cores" for one in cells}),
        "packages": sorted({", ".join(f"{name} {version}" for name, version in one.packages.items()) for one in cells}),
    }
