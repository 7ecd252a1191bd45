import jax
import pytest


@pytest.fixture(scope="session")
def compilation_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compilation_cache")


@pytest.fixture(scope="module")
def fast_compilation(compilation_folder):
    """For modules whose runs compile the same step again and again: the later ones find it on disk."""
    jax.config.update("jax_compilation_cache_dir", str(compilation_folder))
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
