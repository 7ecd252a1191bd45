import jax
import pytest


@pytest.fixture(scope="session")
def compilation_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compilation_cache")


@pytest.fixture(scope="module")
def fast_compilation(compilation_folder):
    """For modules whose runs compile the same step again and again: the later ones find it on disk."""
    names = {"jax_compilation_cache_dir": str(compilation_folder), "jax_enable_compilation_cache": True}
    names |= {"jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
