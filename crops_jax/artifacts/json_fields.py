"""JSON files that others wrote: an object whose fields have the types that their readers count on."""

import json
from pathlib import Path
from typing import Any

from crops_jax.errors import InputError

_WORDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a whole number"}


def read_object(file: Path, *, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError where the file is missing, no JSON, or something else than that."""
    content = read_json(file, remedy=remedy)
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a JSON object, found {_shown(content)}; {remedy}")
    return content


def read_list(file: Path, *, remedy: str) -> list[Any]:
    """The JSON list in a file. Raises InputError as `read_object`."""
    content = read_json(file, remedy=remedy)
    if not isinstance(content, list):
        raise InputError(f"{file}: expected a JSON list, found {_shown(content)}; {remedy}")
    return content


def typed(file: Path, name: str, value: Any, *kinds: type, remedy: str) -> Any:
    """`value` as it is; raises InputError unless it is of one of the kinds. true and false are no numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = "a number" if float in kinds else " or ".join(_WORDS[kind] for kind in kinds)
        raise InputError(f"{file}: {name} must be {wanted}, found {_shown(value)}; {remedy}")
    return value


def read_json(file: Path, *, remedy: str) -> Any:
    """The JSON value in a file. Raises InputError where the file is missing or no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); {remedy}") from error


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) < 80 else f"{shown[:80]}..."
