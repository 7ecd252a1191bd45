"""The page of a comparison: pictures with intervals, tables of systems and ablations, and the paper's figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crops_jax.pages.interval_plot import Row, interval_plot
from crops_jax.pages.page import write_page
from launch.comparison.measures import MAIN
from launch.comparison.published import TRAINING_HOURS, published
from launch.comparison.results.statistics import Estimate
from launch.comparison.results.table import Comparison, Trained
from launch.comparison.systems import GROUPS, SYSTEMS

PAGE = "report.html"
_TEMPLATE = Path(__file__).with_name("comparison.html.j2")
_LABEL_WIDTH = 152
_REFERENCE_COLOUR, _LEARNT_COLOUR, _OTHER_COLOUR = 0, 2, 5
_ARCHITECTURES = {"transformer": "Transformer towers", "hashed": "Towers of hashed IDs"}


def write_comparison_page(
    table: Path, comparison: Comparison, *, manifest: Mapping[str, Any], notes: Sequence[str]
) -> None:
    """Writes TABLE/report.html.

    Args:
      table: the directory of the comparison.
      comparison: its finished part.
      manifest: the manifest that the page embeds.
      notes: sentences that the user should read before the figures.
    """
    measured = [metric for metric in MAIN if metric in comparison.metrics]
    write_page(
        table / PAGE,
        _TEMPLATE,
        manifest=manifest,
        notes=notes,
        reference=comparison.reference,
        metrics={metric: MAIN[metric] for metric in measured},
        charts=_charts(comparison, measured),
        groups=_groups(comparison, measured),
        published=_published(comparison, measured),
        family=len(comparison.differences),
        systems=[SYSTEMS[name] for name in dict.fromkeys(one.system for one in comparison.trained) if name in SYSTEMS],
        queries={metric: _queries(comparison, metric) for metric in measured},
    )


def _charts(comparison: Comparison, metrics: Sequence[str]) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Returns the pictures of each architecture, best system first. Systems without a tower are in each of them."""
    found = []
    for architecture, heading in _ARCHITECTURES.items():
        shown = [one for one in comparison.trained if one.architecture in (architecture, "none")]
        if not any(one.architecture == architecture for one in shown):
            continue
        pictures = []
        for metric in metrics:
            means = {one.system: mean for one in shown if (mean := comparison.means.get((*one.key, metric)))}
            ordered = sorted(means.items(), key=lambda pair: -pair[1].value)
            rows = [_row(comparison, name, mean) for name, mean in ordered]
            title = f"{MAIN[metric]}, {heading.lower()}"
            pictures.append((MAIN[metric], Markup(interval_plot(rows, title=title, label_width=_LABEL_WIDTH))))
        found.append((heading, pictures))
    return found


def _row(comparison: Comparison, system: str, mean: Estimate) -> Row:
    known = SYSTEMS.get(system)
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
        members = [one for one in comparison.trained if group in _groups_of(one.system)]
        if group != "systems":
            members = [one for one in members if one.architecture == "transformer"]
        if len(members) > 1 or (members and group == "systems"):
            rows = [_table_row(comparison, one, metrics) for one in members]
            groups.append({"heading": heading, "rows": rows, "with_cost": group == "losses"})
    return groups


def _groups_of(system: str) -> tuple[str, ...]:
    return SYSTEMS[system].groups if system in SYSTEMS else ("systems",)


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


def _published(comparison: Comparison, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Returns our value and the paper's for each system and metric that the paper has, with both differences.

    Both are also given as differences to the reference, because only the order of systems can be reproduced elsewhere.
    """
    rows = []
    for one in comparison.trained:
        for metric in metrics:
            mean, paper = comparison.means.get((*one.key, metric)), published(*one.key, metric)
            if mean is None or paper is None:
                continue
            of_reference = published(comparison.reference, "transformer", metric)
            own = comparison.differences.get((*one.key, metric))
            rows.append(
                {
                    "system": one.system,
                    "metric": MAIN[metric],
                    "ours": mean.value,
                    "paper": paper,
                    "difference": mean.value - paper,
                    "ours_to_reference": own.estimate.value if own else None,
                    "paper_to_reference": paper - of_reference if own and of_reference is not None else None,
                }
            )
    return rows


def _queries(comparison: Comparison, metric: str) -> int:
    return next(mean.queries for key, mean in comparison.means.items() if key[2] == metric)
