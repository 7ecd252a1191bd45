"""Names of a package that are loaded at their first use, so that importing a package does not load JAX."""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def loaded_on_use(package: str, exports: Mapping[str, Collection[str]]) -> Callable[[str], Any]:
    """Returns the function `__getattr__` of a package (PEP 562) that loads names from their modules.

    The package lists the same names in `__all__`, and imports them under TYPE_CHECKING for type checkers.

    Args:
      package: the name of the package.
      exports: module of the package -> the names that it holds.
    """
    modules = {name: module for module, names in exports.items() for name in names}

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return load
