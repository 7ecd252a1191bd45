"""Finds the paths in the arguments of a program, by the types of crops_jax.storage.roles."""

import contextlib
import dataclasses
import shlex
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tyro

from crops_jax.storage.roles import Role
from crops_jax.storage.schemes import refuse_scheme, refuse_schemes_in


class PathArgument(typing.NamedTuple):
    """One path in the arguments of a program."""

    flag: str
    """The flag, such as --logs or --encoder.weights; PATHS is a positional argument."""
    role: Role
    """The role that the types say."""
    value: str
    """The path."""


def path_arguments(arguments: Any) -> Iterator[PathArgument]:
    """Yields each path and each text of further flags in the arguments of a program, nested dataclasses included.

    An empty text is left out.

    Args:
      arguments: a dataclass whose fields have the types of crops_jax.storage.roles where they are paths.
    """
    yield from _paths(arguments, "")


def refuse_remote_paths(arguments: Any) -> None:
    """Raises InputError when an argument that is a path has a scheme that the program does not take.

    Inputs, and outputs that are published when the program ends, may lie in buckets. Paths in further flags may not.
    """
    for argument in path_arguments(arguments):
        if argument.role is Role.FLAGS:
            with contextlib.suppress(ValueError):  # a missing quote, which the program names
                refuse_schemes_in(shlex.split(argument.value), argument.flag)
        else:
            refuse_scheme(argument.flag, argument.value, buckets=argument.role is not Role.LOCAL)


def with_paths(arguments: Any, local: Callable[[PathArgument], str]) -> Any:
    """Returns the arguments of a program with other paths.

    Args:
      arguments: see `path_arguments`.
      local: gives the new value of a path.
    """
    found = {(argument.flag, argument.value): local(argument) for argument in path_arguments(arguments)}
    return _replaced(arguments, "", found)


def _replaced(arguments: Any, prefix: str, found: Mapping[tuple[str, str], str]) -> Any:
    changed = {}
    for field, flag, _ in _fields(arguments, prefix):
        value = getattr(arguments, field.name)
        if dataclasses.is_dataclass(value):
            new: Any = _replaced(value, flag, found)
        elif isinstance(value, tuple):
            new = tuple(found.get((flag, one), one) if isinstance(one, str) else one for one in value)
        else:
            new = found.get((flag, value), value) if isinstance(value, str) else value
        if new != value:
            changed[field.name] = new
    return dataclasses.replace(arguments, **changed) if changed else arguments


def _paths(arguments: Any, prefix: str) -> Iterator[PathArgument]:
    for field, flag, hint in _fields(arguments, prefix):
        value = getattr(arguments, field.name)
        if dataclasses.is_dataclass(value):
            yield from _paths(value, flag)
        elif (role := role_of(hint)) is not None:
            values = value if isinstance(value, tuple) else (value,)
            yield from (PathArgument(flag, role, one) for one in values if one)


def _fields(arguments: Any, prefix: str) -> Iterator[tuple[dataclasses.Field, str, Any]]:
    """Yields each field with its flag and its type. For a nested dataclass, the flag is the prefix of those in it."""
    hints = typing.get_type_hints(type(arguments), include_extras=True)
    for field in dataclasses.fields(arguments):
        metadata = getattr(hints[field.name], "__metadata__", ())
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(getattr(arguments, field.name)):
            # tyro.conf.arg(name="") leaves the name of a nested dataclass out of the flags of its fields.
            is_unnamed = any(getattr(part, "name", None) == "" for part in metadata)
            yield field, prefix if is_unnamed else f"{prefix or '--'}{name}.", hints[field.name]
        elif tyro.conf.Positional in metadata:
            yield field, field.name.upper(), hints[field.name]
        else:
            yield field, f"{prefix or '--'}{name}", hints[field.name]


def role_of(hint: Any) -> Role | None:
    """Returns the role in the type of a field, such as InputPath | None or tuple[InputPath, ...]; None without one."""
    if isinstance(hint, Role):
        return hint
    parts = (*typing.get_args(hint), *getattr(hint, "__metadata__", ()))
    return next((role for part in parts if (role := role_of(part)) is not None), None)
