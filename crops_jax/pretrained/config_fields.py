"""The parts of reading a config.json that all families share: typed fields, sizes, rotary positions."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crops_jax.artifacts.json_fields import typed
from crops_jax.config import EncoderConfig
from crops_jax.errors import InputError

REMEDY = "copy the folder again"
_ROTARY_FIELDS = {"rope_type", "type", "rope_theta"}


class Family(NamedTuple):
    """How the config.json of a model type is read and written.

    All fields that are not read must have one value or be without effect on vectors, so that nothing is overlooked.
    """

    expected: Mapping[str, Any]
    """The fields that must have one value, if they are present and not null."""
    read: frozenset[str]
    """The fields that `fields` reads."""
    ignored: frozenset[str]
    """The fields without effect on the vectors."""
    fields: Callable[[Path, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    """Returns the fields of EncoderConfig, from the file, its content, and the sizes that every family has."""
    json: Callable[[EncoderConfig], dict[str, Any]]
    """Returns the fields of config.json besides the sizes."""
    translated: Callable[[Path, Mapping[str, Any]], Mapping[str, Any]] = lambda file, content: content
    """Returns the content with the names of fields that transformers uses, where a model type has others too."""


def check_rotary(file: Path, rotary: Mapping[str, Any]) -> None:
    """Raises InputError for rotary positions of another type than the default one."""
    scaling = rotary.get("rope_type") or rotary.get("type") or "default"
    if scaling != "default":
        raise InputError(f"{file}: rotary positions of type {scaling} are not supported; the type must be default")
    # The type is checked first, because the fields of another type follow from it.
    if unknown := [name for name, value in rotary.items() if name not in _ROTARY_FIELDS and value is not None]:
        raise InputError(f"{file}: field {unknown[0]} of the rotary positions is not supported; remove it")


def rotary_base(
    file: Path, rotary: Mapping[str, Any], content: Mapping[str, Any], old_name: str, default: float
) -> float:
    """Returns rope_theta of one kind of layers, or the field that held it in older versions."""
    check_rotary(file, rotary)
    base = optional(file, rotary, "rope_theta", int, float, default=None)
    return float(optional(file, content, old_name, int, float, default=default) if base is None else base)


def size(file: Path, name: str, value: Any, *, minimum: int = 1) -> int:
    """Returns a size after checking it. Raises InputError unless it is a whole number in [minimum, 2^31)."""
    if not minimum <= typed(file, name, value, int, remedy=REMEDY) < 2**31:
        raise InputError(f"{file}: {name} must lie in [{minimum}, 2^31), found {value}; {REMEDY}")
    return value


def optional(file: Path, content: Mapping[str, Any], name: str, *kinds: type, default: Any) -> Any:
    """Returns a field after checking that it is one of the kinds; `default` if it is missing or null."""
    value = content.get(name)
    return default if value is None else typed(file, name, value, *kinds, remedy=REMEDY)
