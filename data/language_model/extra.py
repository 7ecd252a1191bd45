"""The packages of the extra `synthesize`, which only data.synthesize needs; they are loaded at their first use."""

import importlib
import importlib.util
from types import ModuleType

from crops_jax.errors import InputError

PACKAGES = ("openai", "pydantic", "tenacity")
"""The packages of the extra in pyproject.toml: the client of the endpoint, the check of answers, and the retries."""


def check_installed() -> None:
    """Raises InputError, with the command that installs the extra, if one of its packages is missing."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise _missing(name)


def require(name: str) -> ModuleType:
    """Imports a package. Raises InputError, with the command that installs the extra, if it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(error.name or name) from error


def _missing(name: str) -> InputError:
    return InputError(
        f"data.synthesize needs the package {name}, which is not installed; run `make synthesize` in the clone of "
        "crops_jax, which installs the extra synthesize of pyproject.toml"
    )
