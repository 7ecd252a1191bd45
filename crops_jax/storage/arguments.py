"""Finds the paths in the arguments of a program, by the types of crops_jax.storage.roles."""

import contextlib
import dataclasses
import shlex
import typing
from collections.abc import Iterator
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
    """Raises InputError when an argument that is a path has a scheme, such as gs://, or a path in further flags has."""
    for argument in path_arguments(arguments):
        if argument.role is Role.FLAGS:
            with contextlib.suppress(ValueError):  # a missing quote, which the program names
                refuse_schemes_in(shlex.split(argument.value), argument.flag)
        else:
            refuse_scheme(argument.flag, argument.value)


def _paths(arguments: Any, prefix: str) -> Iterator[PathArgument]:
    hints = typing.get_type_hints(type(arguments), include_extras=True)
    for field in dataclasses.fields(arguments):
        value, metadata = getattr(arguments, field.name), getattr(hints[field.name], "__metadata__", ())
        flag = f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            # tyro.conf.arg(name="") leaves the name of a nested dataclass out of the flags of its fields.
            is_unnamed = any(getattr(part, "name", None) == "" for part in metadata)
            yield from _paths(value, prefix if is_unnamed else f"{flag}.")
        elif (role := role_of(hints[field.name])) is not None:
            shown = field.name.upper() if tyro.conf.Positional in metadata else f"--{flag}"
            values = value if isinstance(value, tuple) else (value,)
            yield from (PathArgument(shown, role, one) for one in values if one)


def role_of(hint: Any) -> Role | None:
    """Returns the role in the type of a field, such as InputPath | None or tuple[InputPath, ...]; None without one."""
    if isinstance(hint, Role):
        return hint
    parts = (*typing.get_args(hint), *getattr(hint, "__metadata__", ()))
    return next((role for part in parts if (role := role_of(part)) is not None), None)
