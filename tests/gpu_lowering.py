"""A marker of tests that lower Pallas kernels for GPUs where none is."""

import importlib.util

import jax
import pytest

_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")

lowers_triton = pytest.mark.skipif(
    jax.__version_info__ > (0, 10, 2) and not any(map(importlib.util.find_spec, _PLUGINS)),
    reason="jax 0.11 and newer compile Triton while they lower, which needs jax-cuda13-plugin",
)
