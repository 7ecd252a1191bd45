"""Writes the measured tables of README.md, BUILD.md and docs/ from the stored results, or stores a new result.

    python -m benchmarks.figures                                 rewrites what stands between the markers of the pages
    python -m benchmarks.figures check                           changes nothing; exit status 1 where a page is stale
    python -m benchmarks.figures store demo demo/work            stores the figures of a launch.pipeline directory
    python -m benchmarks.figures store exact_search --from FILE  stores the outcome lines that a program printed

Results are stored on the machine that measured them, from a clone at the commit that was measured. A result keeps the
title and the commands of the one that it replaces, unless new ones are given.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.figures.outcomes import outcome_lines, pipeline_values
from benchmarks.figures.pages import stale
from benchmarks.figures.provenance import measured_here
from benchmarks.figures.registry import markdown
from benchmarks.figures.results import FiguresError, Result, read_result, result_file, write_result

_RECORDED = "by `python -m benchmarks.figures store`"


def main() -> None:
    arguments = _parser().parse_args()
    try:
        if arguments.action == "store":
            _store(arguments)
        else:
            _write(changes=arguments.action != "check")
    except FiguresError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _write(*, changes: bool) -> None:
    """Rewrites the pages, or only names those that would change."""
    found = list(stale(markdown))
    for page, text in found:
        if changes:
            page.write_text(text, encoding="utf-8")
    print(json.dumps({"rewritten" if changes else "stale": [page.name for page, _ in found]}))
    if found and not changes:
        print("call `python -m benchmarks.figures` to rewrite these pages", file=sys.stderr)
        sys.exit(1)


def _store(arguments: argparse.Namespace) -> None:
    """Writes benchmarks/results/NAME.json."""
    if (arguments.work is None) == (arguments.file is None):
        raise FiguresError("name either a work directory of launch.pipeline or a file of outcome lines with --from")
    kept = read_result(arguments.name) if result_file(arguments.name).is_file() else None
    title, commands = arguments.title, tuple(arguments.command)
    if kept is not None:
        title, commands = title or kept.title, commands or kept.commands
    if not title or not commands:
        raise FiguresError(f"{arguments.name} is a new result; give it a --title, and a --command for each command")
    values = pipeline_values(arguments.work) if arguments.work else outcome_lines(arguments.file)
    result = Result(
        title=title,
        kind="pipeline" if arguments.work else "outcomes",
        commands=commands,
        recorded=_RECORDED,
        remarks=tuple(arguments.remark),
        values=values,
        **measured_here(note=arguments.note),
    )
    print(json.dumps({"stored": str(write_result(arguments.name, result))}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("write", help="rewrites the pages (the default)")
    actions.add_parser("check", help="exit status 1 where a page is not what the stored results give")
    store = actions.add_parser("store", help="stores a result")
    store.add_argument("name", help="the result's name, such as demo")
    store.add_argument("work", nargs="?", type=Path, help="a finished work directory of launch.pipeline")
    store.add_argument("--from", dest="file", type=Path, help="a file with the outcome lines that a program printed")
    store.add_argument("--title", default="", help="what pages call the measurement")
    store.add_argument("--command", action="append", default=[], help="a command that measures it; may be repeated")
    store.add_argument("--remark", action="append", default=[], help="a sentence about it; may be repeated")
    store.add_argument("--note", default="", help="a sentence about the machine, such as what else it did")
    return parser


if __name__ == "__main__":
    main()
