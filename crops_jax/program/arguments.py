"""Fills the arguments of a program, a frozen dataclass, from the command line.

For programs that take a configuration, it also loads the configuration and fills its fields.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from crops_jax.config import Config
from crops_jax.devices.platforms import Device
from crops_jax.errors import InputError
from crops_jax.program.help_rules import help_rules
from crops_jax.storage.arguments import refuse_remote_paths
from crops_jax.storage.schemes import refuse_scheme

ConfigArgument = typing.Annotated[Config, tyro.conf.arg(name="")]
"""The type of the field `config` of a program's arguments. The configuration's fields are flags without a prefix."""

_Kind = TypeVar("_Kind")
_Unnamed = typing.Annotated[_Kind, tyro.conf.arg(name="")]
"""The type of a field whose own fields are flags without a prefix."""


_called_as = ""
_command_line = ""


def called_command() -> str:
    """Returns the command line that `parse` read last in this process, for a shell; "" if it read none."""
    return _command_line


def call_as(words: str) -> None:
    """Lets help texts of this process name the program by these words instead of "python -m" and its module."""
    global _called_as
    _called_as = words


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """The flag of every program."""

    json: bool = False
    """Print the outcome as one line of JSON also where standard output is a terminal, which otherwise shows a short
    table and the next commands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceFlags(OutputFlags):
    """The flags of every program that computes with JAX."""

    device: Device | None = None
    """Compute on this kind of device, or refuse to start if there is none. By default JAX takes the fastest that it
    finds."""


def command_of(module: str) -> str:
    """Returns the words that call a program of this project, in the way in which this process was called."""
    if not _called_as:
        return f"python -m {module}"
    return f"{_called_as.partition(' ')[0]} {module.rpartition('.')[2].replace('_', '-')}"


def parse(function: Callable, arguments: list[str], *, example: str = "", device: bool = False) -> Any:
    """Returns the arguments that `parse_call` returns, without the flags that all programs have."""
    return parse_call(function, arguments, example=example, device=device)[0]


def parse_call(function: Callable, arguments: list[str], *, example: str, device: bool) -> tuple[Any, OutputFlags]:
    """Returns the dataclass that `function` takes, filled from a command line, and the flags that all programs have.

    A wrong command line ends the program with status 2.

    Args:
      function: the main function of a program; its docstring is the help text.
      arguments: the command line, without the name of the program.
      example: one line for --help.
      device: whether the program has the flag --device. Then the flags are DeviceFlags.
    """
    global _command_line
    kind = next(kind for name, kind in typing.get_type_hints(function).items() if name != "return")
    prog = _called_as or f"python -m {_module_name(function)}"
    _command_line = " ".join([prog, shlex.join(arguments)]).strip()
    description = f"{inspect.cleandoc(function.__doc__ or '')}\n\nExample: {example}"
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
    shown: dict[str, Any] = {"config": markers, "registry": help_rules()}
    fields = {field.name for field in dataclasses.fields(kind)}
    arguments = _joined(arguments)
    flags = DeviceFlags if device else OutputFlags
    call: Any = dataclasses.make_dataclass("Call", [("arguments", _Unnamed[kind]), ("flags", _Unnamed[flags])])
    with _config_errors_are_input_errors():
        if "config" not in fields:
            values = _starting_values(kind, arguments)
            start = {"default": call(values, flags())} if values is not None else {}
            return _checked(tyro.cli(call, prog=prog, description=description, args=arguments, **shown, **start))
        named = bool(arguments) and not arguments[0].startswith("-")
        if not named and not {"-h", "--help"} & set(arguments):
            raise InputError(f"name a configuration first: {prog} CONFIG ... (a module of configs/, or a path to one)")
        config, rest = (load_config(arguments[0]), arguments[1:]) if named else (Config(), arguments)
        defaults = {f.name: _default(f) for f in dataclasses.fields(kind)} | {"config": config}
        default = call(kind(**defaults), flags())
        prog = f"{prog} CONFIG"
        return _checked(tyro.cli(call, prog=prog, description=description, args=rest, default=default, **shown))


def _checked(filled: Any) -> tuple[Any, OutputFlags]:
    """Returns the arguments and the flags of a call. Raises InputError when a path has a scheme, such as hdfs://."""
    refuse_remote_paths(filled.arguments)
    return filled.arguments, filled.flags


def _starting_values(kind: type, arguments: Sequence[str]) -> Any:
    """Returns the default of arguments whose defaults depend on a flag, and None for other ones.

    Such a dataclass has a class method `named_defaults`, which takes the command line and returns values of fields.
    """
    if not hasattr(kind, "named_defaults"):
        return None
    values = {field.name: _default(field) for field in dataclasses.fields(kind)} | kind.named_defaults(arguments)
    return kind(**values)


def _joined(arguments: Sequence[str]) -> list[str]:
    """Joins each argument of several words that begins with "--" to the flag before it, whose value it is."""
    joined: list[str] = []
    for argument in arguments:
        if joined and argument.startswith("--") and " " in argument and re.fullmatch(r"--[\w.-]+", joined[-1]):
            joined[-1] = f"{joined[-1]}={argument}"
        else:
            joined.append(argument)
    return joined


def load_config(name: str) -> Config:
    """Returns the CONFIG of a module in configs/, such as baselines.nce, or of a Python file.

    Raises InputError when there is none.
    """
    refuse_scheme("configuration", name)
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
        if error.name is None or not f"configs.{name}.".startswith(f"{error.name}."):
            raise InputError(f"configuration {name}: {error}") from error
        files = [file.relative_to("configs") for file in Path("configs").rglob("*.py") if file.stem != "__init__"]
        known = sorted(".".join(file.with_suffix("").parts) for file in files)
        raise InputError(
            f"configuration {name} is not one of configs/ ({', '.join(known)}) nor a path ending in .py"
        ) from error
    except InputError:
        raise
    # A configuration is a program of the user, so all that it raises, exits included, is an error in that file.
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
    except ValueError as error:  # a __post_init__ raised it
        raise InputError(str(error)) from error
