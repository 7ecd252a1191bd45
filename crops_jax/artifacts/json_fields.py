"""Reads JSON files of other origin and checks that their fields have the types that the readers need."""

import json
from pathlib import Path
from typing import Any

from crops_jax.errors import InputError

_TYPE_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a whole number"}


def read_object(file: Path, *, remedy: str) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises InputError when the file is missing, not JSON, or not an object."""
    content = read_json(file, remedy=remedy)
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a JSON object, found {_excerpt(content)}; {remedy}")
    return content


def read_list(file: Path, *, remedy: str) -> list[Any]:
    """Returns the JSON list in a file. Raises InputError when the file is missing, not JSON, or not a list."""
    content = read_json(file, remedy=remedy)
    if not isinstance(content, list):
        raise InputError(f"{file}: expected a JSON list, found {_excerpt(content)}; {remedy}")
    return content


def typed(file: Path, name: str, value: Any, *kinds: type, remedy: str) -> Any:
    """Returns `value` unchanged. Raises InputError unless it has one of the types; true and false are not numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = "a number" if float in kinds else " or ".join(_TYPE_NAMES[kind] for kind in kinds)
        raise InputError(f"{file}: {name} must be {expected}, found {_excerpt(value)}; {remedy}")
    return value


def read_json(file: Path, *, remedy: str) -> Any:
    """Returns the JSON value in a file. Raises InputError when the file is missing or not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); {remedy}") from error


def _excerpt(value: Any) -> str:
    """Returns the beginning of a value as JSON text, for a message."""
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:80]}..."
