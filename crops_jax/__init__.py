"""Dense retrievers from search logs with cross-perspective positives (CroPS, AAAI 2026) in JAX.

Submodules are loaded at their first use, so that `import crops_jax` stays light: it does not load TensorFlow, ScaNN,
torch or Ibis.
"""

import importlib
import pkgutil
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(["__version__", *(module.name for module in pkgutil.iter_modules(__path__))])
