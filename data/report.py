"""Writes one self-contained page: the positives of each perspective compared with the clicks of the search log.

Theta is the relevance discriminator. Alpha is the threshold that the discriminator's probability must exceed.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from crops_jax import artifacts, program
from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.pages.page import LEVELS, check_page, share, write_page
from crops_jax.program.progress import ProgressLine, say
from crops_jax.storage import InputPath, OutputPath
from data.labels.table import check_mined_from
from data.mining.relevance.precision import MAX_RANDOM_PASSING
from data.mining_report import figures as figures
from data.mining_report.charts import (
    PLACE_WORDS,
    Picture,
    distribution_charts,
    level_chart,
    place_chart,
    sweep_charts,
    words,
)
from data.mining_report.examples import draw_examples
from data.mining_report.figures import LOG, Distribution, Gain
from data.mining_report.manifests import AlphaSweep, Mined, read_alpha_sweep, read_mined
from data.mining_report.summary import summary_of
from data.mining_report.tables import ReportTables, open_tables
from data.mining_report.truth import precision_by_truth
from data.perspectives.log_events import LONG_WATCH_SECONDS, parse_time
from data.tables.knowledge_documents import check_same_documents

_TEMPLATE = Path(__file__).parent / "mining_report" / "report.html.j2"
_MAX_EXAMPLES = 100
# A source of positives below this precision is named at the top of the page.
_MIN_PRECISION = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """The arguments of data.report."""

    labels: InputPath
    """The directory of a label table: labels.parquet, or a folder labels of files."""
    logs: InputPath
    """The log tables that the labels were mined from."""
    output: OutputPath
    """The file of the page, such as report.html."""
    knowledge_documents: InputPath | None = None
    """The directory of the table knowledge_documents that data.mine was called with, if any. The page shows the titles
    of its documents."""
    overwrite: bool = False
    """Replace the page if it exists."""
    examples: int = 4
    """The number of positives of each perspective that are shown with their evidence."""
    seed: int = 0
    """The seed of the random choice of examples."""
    memory_limit: str | None = None
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk. The default is 80 % of the machine's
    memory."""


class Figures(NamedTuple):
    """The numbers of the page; see data.mining_report.figures."""

    gains: dict[str, Gain]
    beyond_log: Gain
    overlaps: dict[tuple[str, str], int]
    positives_per_query: dict[str, Distribution]
    supporters: dict[str, Distribution]
    gaps: dict[str, Distribution]
    levels: dict[str, dict[int, int]]
    parts: dict[str, figures.Part]
    without_click: tuple[figures.Part, figures.Part] | None
    unknown_documents: int
    writers: dict[str, int]
    without_evidence: int


def report(arguments: ReportArguments) -> dict[str, Any]:
    """Writes a page about a label table: the gain of each perspective, the documents never shown, and the evidence."""
    inputs = _checked_inputs(arguments)
    mined = read_mined(Path(arguments.labels))
    sweep = read_alpha_sweep(Path(arguments.labels))
    with _open(arguments, mined) as tables:
        results = _figures(tables)
        examples = {
            source: draw_examples(tables, source, number=arguments.examples, seed=arguments.seed)
            for source in results.gains
        }
        names, rows = tables.names, tables.label_rows
        by_truth = precision_by_truth(tables, arguments.logs)
    manifest = artifacts.new_manifest(program="data.report", kind="report", arguments=arguments, inputs=inputs)
    write_page(
        arguments.output,
        _TEMPLATE,
        manifest=manifest,
        notes=_notes(results, mined, names, by_truth, shows_written=arguments.knowledge_documents is not None),
        results=results,
        mined=mined,
        examples=examples,
        rows=rows,
        place_words=PLACE_WORDS,
        accounted=mined.accounted({source: gain.positives for source, gain in results.gains.items()}),
        set_aside=mined.set_aside(),
        discriminator=mined.discriminator(),
        precision=mined.precision(),
        by_truth=by_truth,
        summary=summary_of(results.gains, results.beyond_log, mined.precision(), by_truth),
        funnel=mined.funnel(),
        levels=LEVELS,
        level_counts=_level_counts(results),
        charts=_charts(results, sweep),
        seed=arguments.seed,
    )
    _print_table(results)
    outcome = _outcome(arguments, results, mined, rows)
    measured = {"precision": mined.precision(), "precision_by_truth": by_truth}
    return outcome | {name: found for name, found in measured.items() if found is not None}


def _checked_inputs(arguments: ReportArguments) -> dict[str, str]:
    """Returns the inputs of the page. Raises InputError if an argument is wrong or inputs do not belong together."""
    if not 0 <= arguments.examples <= _MAX_EXAMPLES:
        raise InputError(f"--examples {arguments.examples} is not between 0 and {_MAX_EXAMPLES}")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed} must not be negative")
    inputs = {"labels": arguments.labels, "logs": arguments.logs}
    if arguments.knowledge_documents is not None:
        inputs["knowledge_documents"] = arguments.knowledge_documents
    check_page(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    check_mined_from(arguments.labels, arguments.logs)
    check_same_documents(arguments.labels, arguments.knowledge_documents)
    return inputs


def _open(arguments: ReportArguments, mined: Mined) -> AbstractContextManager[ReportTables]:
    """Opens the label table and the logs as mining opened them."""
    until = mined.arguments.get("until")
    return open_tables(
        arguments.labels,
        arguments.logs,
        until=None if until is None else parse_time(until, argument="--until of data.mine"),
        long_watch_seconds=mined.arguments.get("long_watch_seconds", LONG_WATCH_SECONDS),
        knowledge_documents=arguments.knowledge_documents,
        memory_limit=arguments.memory_limit,
        on_bad_rows=mined.arguments.get("on_bad_rows", "fail"),
    )


def _outcome(arguments: ReportArguments, results: Figures, mined: Mined, rows: int) -> dict[str, Any]:
    return {
        "report": arguments.output,
        "rows": rows,
        "perspectives": {source: gain.as_json() for source, gain in results.gains.items()},
        "beyond_search_log": results.beyond_log.as_json(),
        "levels": {str(int(level)): number for level, number in _level_counts(results).items() if number},
        "skipped": mined.skipped,
    }


def _figures(tables: ReportTables) -> Figures:
    counted = {}
    for name in ProgressLine(Figures._fields, desc="counting", unit="figures", leave=False):
        counted[name] = getattr(figures, name)(tables)
    return Figures(**counted)


def _notes(
    results: Figures,
    mined: Mined,
    names: frozenset[str],
    by_truth: Mapping[str, Mapping[str, Any]] | None,
    *,
    shows_written: bool,
) -> list[str]:
    """Returns the notes that a reader needs before the figures."""
    notes = []
    if not mined.known:
        notes.append(
            "No manifest says how these labels were mined, or from which logs. The report assumes that they belong to "
            "these logs."
        )
    if "candidates" not in names:
        notes.append(
            "The logs hold no candidates, so it is not known what was shown for a query. Numbers that need this are "
            "marked as not known."
        )
    notes += _doubts(mined, results.gains, by_truth or {})
    if not results.gains:
        notes.append("No label has level 4 or higher, so there are no positives to report.")
    notes += [f"{words(source).capitalize()} was skipped in mining: {why}." for source, why in mined.skipped.items()]
    if mined.written_elsewhere and not shows_written:
        notes.append(
            "These labels were mined with knowledge documents from a directory other than the logs; name it with "
            "--knowledge-documents to show their titles here."
        )
    for model, number in results.writers.items():
        notes.append(f"Knowledge-level positives written by {model}, which no search could have shown: {number:,}.")
    if results.without_evidence:
        notes.append(
            f"Positives without evidence, which are counted for the source in their row alone: "
            f"{results.without_evidence:,}."
        )
    if results.unknown_documents:
        notes.append(f"Labels of documents that the logs do not hold: {results.unknown_documents:,}.")
    return notes


def _doubts(mined: Mined, gains: Iterable[str], by_truth: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a note for each measurement by which positives cannot be trusted. gains: the sources of positives."""
    notes = []
    passing = mined.random_pairs_passing
    if passing is not None and passing > MAX_RANDOM_PASSING:
        notes.append(
            f"The relevance discriminator (theta) passes {passing:.1%} of random query-document pairs, more than "
            f"{MAX_RANDOM_PASSING:.0%}: many of the positives that it decided are irrelevant."
        )
    precision = mined.precision()
    for source, measured in precision["sources"].items() if precision else ():
        after = measured.get("after", measured["before"] if source == LOG else {})
        if after.get("judged") and after["value"] < _MIN_PRECISION:
            notes.append(_imprecise(f"Of the judged positives of {words(source)}", after, after["judged"]))
    notes += [
        _imprecise(f"By the truth, of the positives of {words(source)}", by_truth[source], by_truth[source]["pairs"])
        for source in gains
        if source in by_truth and by_truth[source]["value"] < _MIN_PRECISION
    ]
    return notes


def _imprecise(of: str, measured: Mapping[str, Any], pairs: int) -> str:
    interval = f"{measured['low']:.0%} to {measured['high']:.0%}"
    return f"{of}, {measured['value']:.0%} are relevant ({interval}; {pairs:,} pairs)."


def _level_counts(results: Figures) -> dict[Level, int]:
    return {level: sum(counts.get(int(level), 0) for counts in results.levels.values()) for level in LEVELS}


def _charts(results: Figures, sweep: AlphaSweep | None) -> dict[str, list[Picture]]:
    """Returns the charts by section; the list of a section is empty if it has no numbers to draw."""
    order = list(results.gains)
    return {
        "places": place_chart(results.gains),
        "positives_per_query": distribution_charts(
            results.positives_per_query, order, title="Queries by number of positives", unit="queries"
        ),
        "supporters": distribution_charts(
            results.supporters, order, title="Positives by number of users", unit="positives"
        ),
        "gaps": distribution_charts(
            results.gaps, order, title="Positives by seconds between query and evidence", unit="positives"
        ),
        "sweep": sweep_charts(sweep.steps, order, alpha=sweep.alpha) if sweep else [],
        "levels": level_chart(_level_counts(results)),
    }


def _print_table(results: Figures) -> None:
    """Prints the main table to the terminal (standard error)."""
    headings = ("perspective", "queries", "positives", "documents", "not clicked", "never shown", "never a candidate")
    rows: list[tuple[str, ...]] = [headings]
    named = {**results.gains, "beyond the search log": results.beyond_log} if results.gains else {}
    for source, gain in named.items():
        shares = [_with_share(gain, name) for name in ("not_clicked", "never_shown", "never_candidate")]
        rows.append((words(source), f"{gain.queries:,}", f"{gain.positives:,}", f"{gain.documents:,}", *shares))
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    for row in rows:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(row, widths))
        )
        say("  ".join([first, *others]))


def _with_share(gain: Gain, name: str) -> str:
    value, part = getattr(gain, name), gain.share(name)
    return "-" if value is None else f"{value:,}" if part is None else f"{value:,} ({share(part)})"


if __name__ == "__main__":
    program.run(report, example="python -m data.report --labels labels --logs split --output report.html")
