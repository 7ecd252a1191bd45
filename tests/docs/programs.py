"""The programs of this repository and their flags, found without starting those that the library's parser reads."""

import ast
import contextlib
import functools
import importlib
import io
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from crops_jax import program
from crops_jax.errors import InputError
from tests.docs.markdown import ROOT

MODULE = re.compile(r"(crops_jax|data|launch|benchmarks|tests)(\.\w+)+")
_FLAG = re.compile(r"--[a-z0-9][\w.-]*")
_LISTED = re.compile(r"^[│|]?\s*(?:-\w(?: \w+)?, )?(--[a-z0-9][\w.-]*)", re.MULTILINE)
# One text that holds further flags of another program.
_NESTED = {
    "--hold-out-flags": "data.hold_out",
    "--discriminator-flags": "launch.train_discriminator",
    "--mine-flags": "data.mine",
    "--warm-start-flags": "launch.train",
    "--records-flags": "data.write_records",
    "--evaluate-flags": "launch.evaluate",
}
_WITH_ACTIONS = {"benchmarks.figures"}


@dataclass(frozen=True)
class Call:
    """A program that a page calls, the action where it has several, its command line, and the flags in it."""

    module: str
    action: str
    arguments: tuple[str, ...]
    flags: tuple[str, ...]
    whole: bool = True
    """False where only a part of the arguments stands there, in a flag of another program."""


def calls(words: list[str]) -> Iterator[Call]:
    """The calls in one command line: `python -m PROGRAM`, `PROGRAM` by itself, or a script that starts it."""
    for place, word in enumerate(words):
        started = place == 0 or words[place - 1] == "-m" or "one_machine.sh" in words[max(place - 2, 0)]
        if MODULE.fullmatch(word) and started and (ROOT / word.split(".")[0]).is_dir():
            arguments = words[place + 1 :]
            # A name such as crops_jax.labels.Level is a call only behind -m, or with arguments.
            if words[max(place - 1, 0)] == "-m" or any(map(_FLAG.match, arguments)):
                yield from _call(word, arguments)


def _call(module: str, arguments: list[str], *, whole: bool = True) -> Iterator[Call]:
    flags = tuple(word.partition("=")[0] for word in arguments if " " not in word and _FLAG.match(word))
    action = arguments[0] if module in _WITH_ACTIONS and arguments and not arguments[0].startswith("-") else ""
    yield Call(module, action, tuple(arguments), flags, whole)
    for flag, text in itertools.pairwise(arguments):
        if flag in _NESTED:
            yield from _call(_NESTED[flag], text.split(), whole=False)


def exists(module: str) -> bool:
    """Whether `python -m MODULE` finds a program."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@functools.cache
def flags(module: str, action: str = "") -> frozenset[str]:
    """The flags that a program takes."""
    return frozenset(_LISTED.findall(help_page(module, action)))


@functools.cache
def help_page(module: str, action: str = "") -> str:
    """What a program prints with --help, in a terminal of 80 columns."""
    name = _function_of(module)
    if name is None:
        command = [sys.executable, "-m", module, *([action] if action else []), "--help"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return _help(getattr(importlib.import_module(module), name), device=takes_device(module))


def refusal(call: Call) -> str | None:
    """What the parser of a program of data/ or launch/ says against a command; None where it takes it."""
    name = _function_of(call.module)
    if name is None or not call.whole:
        return None
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            function = getattr(importlib.import_module(call.module), name)
            program.parse(function, list(call.arguments), device=takes_device(call.module))
    except (SystemExit, InputError) as error:
        return f"{call.module} {' '.join(call.arguments)}: {told.getvalue() or error}"
    return None


def all_programs() -> list[str]:
    """The modules of all programs of data/ and launch/."""
    modules = [f"{package}.{file.stem}" for package in ("data", "launch") for file in (ROOT / package).glob("*.py")]
    return [module for module in modules if _function_of(module)]


def all_flags() -> frozenset[str]:
    """The flags of all programs of data/ and launch/."""
    return frozenset().union(*(flags(module) for module in all_programs()))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@functools.cache
def _function_of(module: str) -> str | None:
    """The function that a module passes to `program.run`; None where it does not call it."""
    found = _run_of(module)
    return None if found is None else ast.unparse(found.args[0])


def _run_of(module: str) -> ast.Call | None:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        return None
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "program.run":
            return node
    return None


def run_options(module: str) -> dict[str, Any]:
    """The options that a module passes to `program.run`; empty where it does not call it."""
    found = _run_of(module)
    return {} if found is None else {str(word.arg): ast.literal_eval(word.value) for word in found.keywords}


def takes_device(module: str) -> bool:
    """Whether a program has the flag --device."""
    return run_options(module).get("device", False)


def _help(function, *, device: bool) -> str:
    printed = io.StringIO()
    with mock.patch.dict("os.environ", {"COLUMNS": "80"}), contextlib.redirect_stdout(printed):
        with contextlib.suppress(SystemExit):
            program.parse(function, ["--help"], device=device)
    return printed.getvalue()
