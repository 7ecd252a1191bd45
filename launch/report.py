"""Writes one self-contained page of runs, evaluations and label tables."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from markupsafe import Markup

from crops_jax import artifacts, program
from crops_jax.labels import RECALL, SCORE_GAP, Level
from crops_jax.pages.histogram import histogram
from crops_jax.pages.interval_plot import Row, interval_plot
from crops_jax.pages.line_chart import Curve, line_chart
from crops_jax.pages.page import LEVELS, check_page, write_page
from crops_jax.storage import InputPath, OutputPath
from launch.run_report.combinations import combinations
from launch.run_report.comparison import SUBSETS, TESTS, System, compare, systems_of
from launch.run_report.conclusion import against_bm25, shared_runs, shared_sentences
from launch.run_report.examples import PERSPECTIVES, examples
from launch.run_report.headline import ALWAYS, Figure, headline, label_of
from launch.run_report.sources import Evaluation, Labels, Run, Sources, read_sources
from launch.run_report.summary import facts_of, next_steps, verdict_of

_TEMPLATE = Path(__file__).parent / "run_report" / "report.html.j2"


@dataclass(frozen=True, kw_only=True)
class RunReportArguments:
    paths: Annotated[tuple[InputPath, ...], tyro.conf.Positional]
    """The directories of runs, evaluations and label tables, or a work directory of launch.pipeline."""
    output: OutputPath
    """The file of the page, such as report.html."""
    overwrite: bool = False
    """Replaces the page if it exists."""


def report(arguments: RunReportArguments) -> dict[str, Any]:
    """Writes one self-contained page: figures side by side with their intervals, labels, loss curves and examples."""
    return write_report(arguments.paths, arguments.output, overwrite=arguments.overwrite)


def write_report(paths: Sequence[str], output: str, *, overwrite: bool = False) -> dict[str, Any]:
    """Writes the page.

    Args:
      paths: directories of kind evaluation, run or labels, or a work directory that contains them. The others are
        compared with the first evaluation.
      output: the file of the page.
      overwrite: whether to replace a page that a program of this project wrote.

    Returns:
      A dictionary with "report" (the path), "verdicts" (the sentence at the top of the page, one for each SPLIT),
      "metrics" (system -> label -> value, of the headline and of `ALWAYS`), "differences" (the rows of `compare`),
      "combinations" (encoder -> system on top of it -> label -> value), "against_bm25" (the sentences on the best
      encoder of each judged figure) and "shared_runs" (an evaluation -> the one whose run it shares).
    """
    check_page(output, overwrite=overwrite)
    sources = read_sources(paths)
    manifest = artifacts.new_manifest(
        program="launch.report", kind="report", arguments={}, inputs=dict(sources.manifests)
    )
    splits = list(dict.fromkeys(evaluation.split for evaluation in sources.evaluations))
    sections = [_section(sources, split) for split in splits]
    write_page(
        output,
        _TEMPLATE,
        manifest=manifest,
        notes=list(dict.fromkeys(note for section in sections for note in section["notes"])),
        sections=sections,
        facts=facts_of(sources.evaluations, sources.runs, sources.works),
        labels=[_label_card(table, position) for position, table in enumerate(sources.labels)],
        sources_of_labels=_label_sources(sources.labels),
        sweeps=[table for table in sources.labels if table.alpha_sweep],
        training=_training(sources.runs),
        runs=sources.runs,
        levels=LEVELS,
        perspectives=PERSPECTIVES,
        tests=TESTS,
        subsets=SUBSETS,
        label_of=label_of,
    )
    metrics: dict[str, dict[str, float]] = {}
    combined: dict[str, dict[str, dict[str, float]]] = {}
    for section in sections:
        suffix = "" if len(sections) == 1 else f" on {section['split'][:12]}"
        for system in section["systems"]:
            found = system.by_label(dict.fromkeys([*section["headline"], *ALWAYS]))
            metrics[system.name + suffix] = {label: figure["value"] for label, figure in found.items()}
        for one in section["combinations"]:
            figures = {label: figure["value"] for label, figure in one.figures.items()}
            combined.setdefault(one.encoder + suffix, {})[one.system] = figures
    return {
        "report": output,
        "verdicts": [section["verdict"] for section in sections],
        "metrics": metrics,
        "differences": [row for section in sections for row in section["differences"]],
        "combinations": combined,
        "against_bm25": [sentence for section in sections for sentence in section["against_bm25"]],
        "shared_runs": {name: other for section in sections for name, other in section["shared_runs"].items()},
    }


def _section(sources: Sources, split: str) -> dict[str, Any]:
    """Returns the content of the section about the evaluations of one SPLIT."""
    evaluations = [evaluation for evaluation in sources.evaluations if evaluation.split == split]
    systems = systems_of(evaluations)
    documents = evaluations[0].metrics["documents"]
    figures = headline(documents, [system.figures for system in systems])
    differences = compare(systems, figures)
    shared = shared_runs(evaluations)
    combined = combinations(evaluations, figures)
    concluded = against_bm25(systems, figures, differences, labels=sources.labels, runs=sources.runs, shared=shared)
    return {
        "split": split,
        "documents": documents,
        "headline": figures,
        "verdict": verdict_of(systems, figures, differences),
        "next_steps": next_steps(systems, figures, differences, combined, sources, shared),
        "against_bm25": concluded,
        "shared_runs": shared,
        "shared": shared_sentences(shared, sources.labels),
        "random": evaluations[0].metrics["random"],
        "systems": systems,
        "charts": _charts(systems, figures, evaluations[0]),
        "differences": differences,
        "test_sets": evaluations[0].metrics["tests"],
        "evaluations": evaluations,
        "combinations": combined,
        "examples": examples(evaluations, sources.labels),
        "notes": _notes(evaluations),
    }


def _notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns the notes of the evaluations. A note that not all of them have begins with the names of those that do."""
    names: dict[str, list[str]] = {}
    for evaluation in evaluations:
        for note in dict.fromkeys(evaluation.metrics["notes"]):
            names.setdefault(note, []).append(evaluation.name)
    common = [note for note, having in names.items() if len(having) == len(evaluations)]
    return common + [f"{', '.join(having)}: {note}" for note, having in names.items() if note not in common]


def _charts(systems: Sequence[System], figures: Sequence[Figure], evaluation: Evaluation) -> list[tuple[str, Markup]]:
    charts = []
    for figure in figures:
        rows = [
            Row(system.name, found["value"], found["low"], found["high"], position)
            for position, system in enumerate(systems)
            if (found := system.figure(figure))
        ]
        if rows:
            # Over a part of the pairs, the rankings lack some documents, so the corpus is another one.
            of_random = evaluation.metrics["random"].get(figure.metric) if figure.pairs == "all" else None
            reference = ("a random order", of_random) if of_random is not None else None
            charts.append((figure.label, Markup(interval_plot(rows, title=figure.label, reference=reference))))
    return charts


def _label_card(labels: Labels, place: int) -> dict[str, Any]:
    counts = [(text, labels.levels[level]) for level, text in LEVELS.items() if level != Level.IN_BATCH_NEGATIVE]
    if labels.levels[Level.IN_BATCH_NEGATIVE]:
        counts.append((LEVELS[Level.IN_BATCH_NEGATIVE], labels.levels[Level.IN_BATCH_NEGATIVE]))
    title = f"Labels of {labels.name} by level"
    total = sum(labels.levels.values())
    return {"name": labels.name, "total": total, "chart": Markup(histogram(counts, title=title, colour_at=place))}


def _label_sources(tables: Sequence[Labels]) -> dict[str, list[int]]:
    """Returns the number of labels of each source in each table, in the order of the tables."""
    names = dict.fromkeys(name for table in tables for name in table.sources)
    return {name: [table.sources.get(name, 0) for table in tables] for name in names}


def _training(runs: Sequence[Run]) -> list[tuple[str, Markup]]:
    charts = []
    names = {name for run in runs for line in run.lines for name in line}
    titles = {"loss": "Training loss", **{name: _words(name) for name in sorted(names) if name.startswith("dev_")}}
    for prefix, text in ((RECALL, "Recall in the batch"), (SCORE_GAP, "Score gap in the batch")):
        of_levels = {f"{prefix}_{level}": f"{text}, level {name}" for level, name in LEVELS.items()}
        titles |= {field: title for field, title in of_levels.items() if field in names}
    for field, title in titles.items():
        curves = [Curve(run.name, drawn_points(run, field), position) for position, run in enumerate(runs)]
        if any(curve.points for curve in curves):
            charts.append((title, Markup(line_chart(curves, title=title))))
    return charts


def drawn_points(run: Run, field: str) -> list[tuple[float, float]]:
    """Returns the (step, value) of a field that are drawn.

    A line of metrics.jsonl is about the steps since the line before. The last line can be about a single step, whose
    figures vary much more than those of the others: it is left out where it is about less than half of the usual number
    of steps. The figures of the dev split do not depend on the number of steps.
    """
    lines = run.lines
    if len(lines) > 2 and not field.startswith("dev_"):
        sizes = [after["step"] - before["step"] for before, after in itertools.pairwise(lines)]
        if sizes[-1] < sorted(sizes)[len(sizes) // 2] / 2:
            lines = lines[:-1]
    return [(line["step"], line[field]) for line in lines if isinstance(line.get(field), int | float)]


def _words(name: str) -> str:
    return name.removeprefix("dev_").replace("_at_", "@").replace("_", " ").capitalize() + " on the dev slice"


if __name__ == "__main__":
    program.run(report, example="python -m launch.report run evaluation --output report.html")
