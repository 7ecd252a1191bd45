"""Eight CPU devices for the sharding tests; implicit rank promotion is an error."""

import contextlib
import os
import sys

# The tests start hundreds of Pythons. Each of them would compile the sources of JAX and Transformers to bytecode anew,
# which takes longer than to run it, where the environment says that bytecode shall not be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation of small programs is most of the work; without the optimisations of LLVM it takes a third less.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

sys.dont_write_bytecode = False
# The same examples on every run, and none of them against a clock.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")
jax.config.update("jax_numpy_rank_promotion", "raise")


COMPILATION = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@contextlib.contextmanager
def _compilation_restored():
    """Gives JAX back the settings of compiled programs that it had before, first of all their folder.

    JAX opens the folder once in a process. A program that a test calls names one below its own temporary folder, and
    pytest removes that after the test: a later test that compiles would end with a folder that is not found.
    """
    before = {name: getattr(jax.config, name) for name in COMPILATION}
    yield
    if {name: getattr(jax.config, name) for name in COMPILATION} != before:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def compilation_of_the_test():
    with _compilation_restored():
        yield


@pytest.fixture(scope="module", autouse=True)
def compilation_of_the_module():
    with _compilation_restored():
        yield
    compilation_cache.reset_cache()
