"""How every program of this project behaves: arguments, outcome line, exit status.

A program is a frozen dataclass of arguments and a function from it to its outcome, a dictionary:

    if __name__ == "__main__":
        program.run(mine, example="python -m data.mine --logs logs --output labels")

The outcome is printed as one line of JSON, the last on standard output; everything else goes to standard error.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import json
import os
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import tyro

from crops_jax.config import Config
from crops_jax.devices import cluster_environment, processes
from crops_jax.errors import AnotherProcessFailed, InputError, Interrupted, NamedFailure, explained

ConfigArgument = typing.Annotated[Config, tyro.conf.arg(name="")]
"""Type of the field `config` of a program's arguments: its own fields are flags without a prefix."""


def run(function: Callable[[Any], dict[str, Any]], *, example: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `function` on arguments parsed from the command line and exits with the status of product.md.

    Args:
      function: takes one parameter annotated with a dataclass of arguments; its docstring is the help text. When
        that dataclass has a field `config: ConfigArgument`, the first positional argument names a configuration (see
        `load_config`) and every field of it can be overridden: `--optimizer.learning-rate 1e-5`.
      example: one line for --help.
      arguments: the command line, by default sys.argv[1:].
    """
    cluster_environment.skip_absent_tpu(os.environ)
    with _stdout_for_outcome_only() as print_outcome:
        sys.exit(_status(function, example, list(sys.argv[1:] if arguments is None else arguments), print_outcome))


def _status(function: Callable, example: str, arguments: list[str], print_outcome: Callable[[str], None]) -> int:
    previous = signal.signal(signal.SIGTERM, _raise_interrupted)
    previous_hook, sys.unraisablehook = sys.unraisablehook, _terminates_again(sys.unraisablehook)
    try:
        outcome = function(parse(function, arguments, example=example))
        # Of several processes the first speaks for all.
        if processes.current().is_first:
            print_outcome(json.dumps(outcome, ensure_ascii=False, default=str))
        return 0
    except AnotherProcessFailed as error:
        return error.status
    except BrokenPipeError:
        return NamedFailure.status
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        found = explained(error)
        if found is None:
            raise
        status, message = found
        _complain(message)
        return status
    finally:
        sys.unraisablehook = previous_hook
        signal.signal(signal.SIGTERM, previous)


def parse(function: Callable, arguments: list[str], *, example: str = "") -> Any:
    """The dataclass that `function` takes, filled from a command line; a wrong one exits with status 2."""
    kind = next(kind for name, kind in typing.get_type_hints(function).items() if name != "return")
    prog = f"python -m {_module_name(function)}"
    description = f"{inspect.cleandoc(function.__doc__ or '')}\n\nExample: {example}"
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
    fields = {field.name for field in dataclasses.fields(kind)}
    arguments = _joined(arguments)
    with _config_errors_are_input_errors():
        if "config" not in fields:
            return tyro.cli(kind, prog=prog, description=description, args=arguments, config=markers)
        named = bool(arguments) and not arguments[0].startswith("-")
        if not named and not {"-h", "--help"} & set(arguments):
            raise InputError(f"name a configuration first: {prog} CONFIG ... (a module of configs/, or a path to one)")
        config, rest = (load_config(arguments[0]), arguments[1:]) if named else (Config(), arguments)
        given = {f.name: _default(f) for f in dataclasses.fields(kind)} | {"config": config}
        return tyro.cli(
            kind, prog=f"{prog} CONFIG", description=description, args=rest, default=kind(**given), config=markers
        )


def _joined(arguments: Sequence[str]) -> list[str]:
    """A text of several words that begins with "--" is no flag: it is the value of the flag before it."""
    joined: list[str] = []
    for argument in arguments:
        if joined and argument.startswith("--") and " " in argument and re.fullmatch(r"--[\w.-]+", joined[-1]):
            joined[-1] = f"{joined[-1]}={argument}"
        else:
            joined.append(argument)
    return joined


def load_config(name: str) -> Config:
    """The CONFIG of a module in configs/ or of a Python file. Raises InputError when there is none."""
    path = Path(name)
    try:
        if path.suffix == ".py":
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None or not path.is_file():
                raise InputError(
                    f"configuration {name}: no such file; give a module of configs/ or a path ending in .py"
                )
            module: types.ModuleType = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(f"configs.{name}")
    except ModuleNotFoundError as error:
        if error.name not in {f"configs.{name}", "configs"}:
            raise InputError(f"configuration {name}: {error}") from error
        known = sorted(p.stem for p in Path("configs").glob("*.py") if p.stem != "__init__")
        raise InputError(
            f"configuration {name} is not one of configs/ ({', '.join(known)}) nor a path ending in .py"
        ) from error
    except InputError:
        raise
    # A configuration is the user's own program: whatever it raises, an exit included, is about that file.
    except (Exception, SystemExit) as error:
        raise InputError(f"configuration {name} does not load: {type(error).__name__}: {error}") from error
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, Config):
        raise InputError(
            f"configuration {name}: CONFIG must be a crops_jax.config.Config, found {type(config).__name__}"
        )
    return config


def _module_name(function: Callable) -> str:
    module = sys.modules.get(function.__module__)
    spec = getattr(module, "__spec__", None)
    return spec.name if spec else function.__module__


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


@contextlib.contextmanager
def _config_errors_are_input_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # from a __post_init__
        raise InputError(str(error)) from error


@contextlib.contextmanager
def _stdout_for_outcome_only() -> Iterator[Callable[[str], None]]:
    """Sends standard output to standard error, at the level of file descriptors so that native code is caught too."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        yield print
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def print_outcome(line: str) -> None:
        # A path in the outcome may hold bytes that are not UTF-8.
        os.write(kept, (line + "\n").encode(errors="surrogateescape"))

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield print_outcome
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _raise_interrupted(*_: Any) -> None:
    raise Interrupted("terminated; nothing half-written is kept; call the same command again")


def _terminates_again(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """A hook for exceptions that Python drops, which does not let the answer to SIGTERM be one of them.

    A signal may come while the collector, a finaliser or a weak reference calls back; what is raised there goes no
    further. The signal is then sent again, a moment later, to whichever handler is in place by then.
    """

    def send() -> None:
        if callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)

    def answer(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, Interrupted):
            timer = threading.Timer(0.05, send)
            timer.daemon = True
            timer.start()
        else:
            hook(unraisable)

    return answer


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
