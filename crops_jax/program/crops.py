"""The command `crops`: every program of the repository by its name, in any directory.

`crops mine ...` is `python -m data.mine ...` in the root of the clone in which `make setup` installed the command. The
programs lie beside the library in that clone and are no part of the wheel.
"""

import ast
import difflib
import os
import runpy
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import crops_jax
from crops_jax.errors import InputError, end_at_once_on_signals
from crops_jax.program.arguments import call_as

STAGES = {
    "Whole chains": ("launch.pipeline", "launch.compare"),
    "Log tables": ("data.convert", "data.simulate", "data.synthesize", "data.inspect"),
    "Labels": (
        "data.hold_out",
        "launch.train_discriminator",
        "data.mine",
        "data.report",
        "launch.mine_negatives",
        "data.pretraining_pairs",
    ),
    "Training": ("data.write_records", "launch.train", "launch.status", "launch.compile", "launch.tpu"),
    "Retrieval": ("launch.embed", "launch.evaluate", "launch.report", "launch.search", "launch.export"),
}
"""The programs by the stage of the work in which they are used."""
_LABELS_REPORT = "data.report"
_RUN_REPORT = "launch.report"


def main(arguments: Sequence[str] | None = None, root: Path | None = None) -> NoReturn:
    """Runs the program that the first argument names with the other arguments, and exits with its status.

    Both report pages are called report: with --labels it is data.report, and without it launch.report. The names of
    modules, such as data.mine, are taken too. Without a name, or with --help, the programs are listed.

    Args:
      arguments: the command line, by default sys.argv[1:].
      root: the folder of the packages data, launch and configs, by default the one that holds crops_jax.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    root = Path(crops_jax.__file__).parents[1] if root is None else root
    try:
        _check_programs(root)
        if not given or given[0] in ("-h", "--help"):
            print(_listing(root), file=sys.stdout if given else sys.stderr)
            sys.exit(0 if given else InputError.status)
        if given[0] == "--version":
            print(f"crops_jax {crops_jax.__version__}")
            sys.exit(0)
        module = module_of(given[0], given[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(InputError.status)
    # Programs start others by `python -m`, which otherwise looks for them in the present directory first.
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ |= {"PYTHONPATH": os.pathsep.join([str(root), *others]), "PYTHONSAFEPATH": "1"}
    sys.path.insert(0, str(root))
    sys.argv = given
    call_as(f"crops {given[0]}")
    end_at_once_on_signals()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def module_of(name: str, arguments: Sequence[str] = ()) -> str:
    """Returns the module of a program. Raises InputError if there is none of this name, with those of similar names.

    Args:
      name: the name of the program with hyphens or underscores, or of its module.
      arguments: its arguments, which decide between the two programs that are called report.
    """
    modules = [module for programs in STAGES.values() for module in programs]
    asked = name.replace("-", "_")
    if asked in modules:
        return asked
    if asked == "report":
        of_labels = any(word == "--labels" or word.startswith("--labels=") for word in arguments)
        return _LABELS_REPORT if of_labels else _RUN_REPORT
    named = {module.partition(".")[2]: module for module in modules}
    if asked in named:
        return named[asked]
    similar = [_command(named[close]) for close in difflib.get_close_matches(asked, named, n=3)]
    remedy = f"did you mean {' or '.join(similar)}?" if similar else "crops --help lists all of them"
    raise InputError(f"there is no program {name!r}; {remedy}")


def _check_programs(root: Path) -> None:
    """Raises InputError if the programs are not there, as with an installed wheel."""
    if not (root / "launch" / "pipeline.py").is_file():
        raise InputError(
            f"the programs are not part of the installed package, and {root} has none. Clone the repository and call "
            "make setup in it; the command .venv/bin/crops of that clone runs them in any directory"
        )


def _command(module: str) -> str:
    """Returns the words that call a program."""
    name = module.partition(".")[2].replace("_", "-")
    return f"crops {name} --labels" if module == _LABELS_REPORT else f"crops {name}"


def _listing(root: Path) -> str:
    """Returns the table of all programs, with the first line of the documentation of each, from its file."""
    width = 4 + max(len(_command(module)) for programs in STAGES.values() for module in programs)
    columns = max(60, min(120, shutil.get_terminal_size().columns))
    lines = ["usage: crops PROGRAM ...", ""]
    for stage, programs in STAGES.items():
        lines.append(f"{stage}:")
        for module in programs:
            text = (root / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
            documentation = ast.get_docstring(ast.parse(text)) or ""
            named = f"  {_command(module)}".ljust(width)
            lines.append(
                textwrap.fill(
                    documentation.splitlines()[0], columns, initial_indent=named, subsequent_indent=" " * width
                )
            )
        lines.append("")
    return "\n".join([*lines, "crops PROGRAM --help lists the flags of a program, with an example."])
