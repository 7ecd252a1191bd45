"""The head of a report: the verdict in one sentence, and the date, data, command and cost of what it compares."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from launch.run_report.combinations import Combination
from launch.run_report.comparison import System
from launch.run_report.headline import Figure
from launch.run_report.sources import Evaluation, Labels, Run, Sources, Work

_VERDICTS = ("better", "worse", "no difference shown")


def verdict_of(systems: Sequence[System], headline: Sequence[Figure], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns one sentence on the best encoder: where it is better and worse than BM25, and than the first encoder.

    The best encoder has the highest value of the first headline figure that encoders have.

    Args:
      systems: the systems of one SPLIT, of which the first is the one that other encoders are compared with.
      headline: the headline figures.
      rows: the rows of `launch.run_report.comparison.compare`.
    """
    encoders = [system for system in systems if not system.is_bm25]
    found = _best(systems, headline)
    if found is None:
        return "No test set has a query, so the systems cannot be compared."
    figure, best = found
    first = encoders[0]
    opponents = [system.name for system in systems if system.is_bm25][:1]
    opponents += [first.name] if first is not best else []
    parts = [_against(best.name, opponent, rows) for opponent in opponents]
    named = f"Of the {len(encoders)} encoders, {best.name} has the highest {figure.label}"
    if len(encoders) == 1:
        named = f"{best.name} is the only encoder of this page"
    return f"{named}; it is {', and '.join(part for part in parts if part)}." if any(parts) else f"{named}."


def _best(systems: Sequence[System], headline: Sequence[Figure]) -> tuple[Figure, System] | None:
    """Returns the first headline figure that encoders have, and the encoder that has its highest value."""
    for figure in headline:
        values = [(found["value"], one) for one in systems if not one.is_bm25 and (found := one.figure(figure))]
        if values:
            return figure, max(values, key=lambda pair: pair[0])[1]
    return None


def _against(name: str, opponent: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns in which figures a system is better or worse than another one; "" where they are not compared."""
    found = [row for row in rows if (row["system"], row["against"]) == (name, opponent)]
    by_verdict = {verdict: [row["label"] for row in found if row["verdict"] == verdict] for verdict in _VERDICTS}
    if not found:
        return ""
    better, worse, unclear = (by_verdict[verdict] for verdict in _VERDICTS)
    if not better and not worse:
        return f"not shown to differ from {_shown(opponent)} in any of the {len(found)} headline figures"
    words = []
    if better:
        words.append(f"better than {_shown(opponent)} in {_listed(better, len(found))}")
    if worse:
        than = "" if better else f" than {_shown(opponent)}"
        words.append(f"worse{than} in {_listed(worse, len(found))}")
    tail = f" (no difference is shown in the {_others(len(unclear))})" if unclear else ""
    return " and ".join(words) + tail


def _others(count: int) -> str:
    return "other one" if count == 1 else f"{count} others"


def _shown(name: str) -> str:
    return "BM25" if name == "bm25" else name


def _listed(labels: Sequence[str], total: int) -> str:
    labels = [label.replace(", unseen pairs", " of unseen pairs") for label in labels]
    if len(labels) == total:
        return "the only headline figure" if total == 1 else f"all {total} headline figures"
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def facts_of(evaluations: Sequence[Evaluation], runs: Sequence[Run], works: Sequence[Work]) -> list[tuple[str, str]]:
    """Returns (name, value) of the facts that a reader asks first: data, date, cost, source, command.

    A fact that the sources do not record is left out.
    """
    starts = {run.name: [line for line in run.goodput if line.get("event") == "start"] for run in runs}
    facts = [("Data", words) for words in dict.fromkeys(_data(evaluation) for evaluation in evaluations)]
    times = sorted(line["time"] for lines in starts.values() for line in lines if isinstance(line.get("time"), str))
    if times:
        days = sorted({datetime.fromisoformat(time).astimezone(UTC).date().isoformat() for time in times})
        facts.append(("Trained", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"))
    cost = [_cost(run, starts[run.name]) for run in runs]
    if any(cost):
        facts.append(("Cost of training", "; ".join(words for words in cost if words)))
    facts += [("Time of all steps", _duration(sum(work.seconds.values()))) for work in works if work.seconds]
    versions = dict.fromkeys(_version(run, starts[run.name]) for run in runs)
    if versions:
        facts.append(("Source", "; ".join(versions)))
    facts += [("Command", work.command) for work in works if work.command]
    return facts


def _data(evaluation: Evaluation) -> str:
    metrics, logs = evaluation.metrics, evaluation.manifest["inputs"].get("logs", {})
    tests = [
        f"{counts['queries']:,} {name.replace('_', ' ')}"
        for name, counts in metrics["tests"].items()
        if "absent" not in counts and counts["queries"]
    ]
    made = logs.get("manifest", {})
    held_out = _held_out(made.get("arguments", {})) if made.get("program") == "data.hold_out" else ""
    queries = f"; test queries: {', '.join(tests)}" if tests else ""
    return f"{metrics['documents']:,} documents{queries}{held_out}; log tables {evaluation.split[:12]}"


def _held_out(arguments: Mapping[str, Any]) -> str:
    if arguments.get("from_time"):
        return f"; the test period begins at {arguments['from_time']}"
    return f"; held out by {arguments['by']}" if arguments.get("by") else ""


def _cost(run: Run, starts: Sequence[Mapping[str, Any]]) -> str:
    """Returns the time and the devices of a run, restarts included; "" where the run does not record its time."""
    seconds = sum(line.get("seconds", 0.0) for line in run.goodput)
    if not seconds:
        return ""
    devices = dict.fromkeys(str(line["devices"]) for line in starts if line.get("devices"))
    on = f" on {' and '.join(devices)}" if devices else ""
    restarts = len(starts) - 1
    again = f", with {restarts} {'restart' if restarts == 1 else 'restarts'}" if restarts > 0 else ""
    return f"{run.name} {_duration(seconds)}{on}{again}"


def _version(run: Run, starts: Sequence[Mapping[str, Any]]) -> str:
    commits = dict.fromkeys(str(line["commit"]) for line in starts if line.get("commit"))
    version = f"crops_jax {run.version}"
    return f"{version}, commit {' and '.join(commits)}" if commits else version


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def next_steps(
    systems: Sequence[System],
    headline: Sequence[Figure],
    rows: Sequence[Mapping[str, Any]],
    combined: Sequence[Combination],
    sources: Sources,
    shared: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Returns what to do next, as (sentence, command), by the measured differences; the command can be empty.

    Commands hold RUN, LABELS and SPLIT where the sources do not name these directories.

    Args:
      systems, headline, rows: as in `verdict_of`.
      combined: the systems on top of the encoders.
      sources: the sources of the page.
      shared: from an arm that has no run of its own to the arm whose run it shares.
    """
    found = _best(systems, headline)
    if found is None:
        return []
    best = found[1].name
    against = [row for row in rows if (row["system"], row["against"]) == (best, "bm25")]
    worse = [row["label"] for row in against if row["verdict"] == "worse"]
    unclear = [row for row in against if row["verdict"] == "no difference shown"]
    split = str(sources.works[0].path / "split") if sources.works else "SPLIT"
    run = _path_of(best, sources.runs, shared, "RUN")
    steps = [
        (
            f"Look at what {best} finds for your own queries.",
            _command("search", "--run", run, "--logs", split, "a query"),
        )
    ]
    steps += [
        (
            f"Serve {best} {one.words.partition(';')[0]}. This is better than the encoder alone, and nowhere worse.",
            "",
        )
        for one in combined
        if one.encoder == best and one.system.startswith("fusion") and _only_better(one.differences)
    ]
    if worse:
        table = _path_of(best, sources.labels, {}, "LABELS")
        why = (
            f"Find out why BM25 leads in {_listed(worse, len(against))}. The page of the labels shows how many of them "
            "are relevant and new. More steps, and pre-trained weights, are the other things to vary."
        )
        steps.append(
            (why, f"python -m data.report {shlex.join(['--labels', table, '--logs', split])} --output labels.html")
        )
    if unclear:
        widest = max((row["high"] - row["low"]) / 2 for row in unclear)
        steps.append(
            (f"Hold out more queries: the present ones cannot show a difference below about {widest:.3f}.", "")
        )
    if not worse:
        export = _command("export", "--run", run, "--output", "encoder")
        steps.append((f"Export {best} for other libraries.", export))
    return steps


def _path_of(name: str, sources: Sequence[Run] | Sequence[Labels], shared: Mapping[str, str], otherwise: str) -> str:
    """Returns the path of the source with a name, or of the one that it shares."""
    paths = {one.name: str(one.path) for one in sources}
    return paths.get(name) or paths.get(shared.get(name, ""), otherwise)


def _command(program: str, *arguments: str) -> str:
    return shlex.join(["python", "-m", f"launch.{program}", *arguments])


def _only_better(differences: Mapping[str, Mapping[str, Any]]) -> bool:
    verdicts = [difference["verdict"] for difference in differences.values()]
    return "better" in verdicts and "worse" not in verdicts
