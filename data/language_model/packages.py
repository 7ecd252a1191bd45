"""The packages that only data.synthesize needs."""

import importlib
from types import ModuleType

from crops_jax.errors import InputError


def require(name: str) -> ModuleType:
    """Imports a package. Raises InputError saying how to get it where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"data.synthesize needs the package {error.name}, which is not installed; run make setup again, or install "
            "the dependency group data of pyproject.toml"
        ) from error
