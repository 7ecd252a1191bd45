"""Training losses. Each is one function with its formula, shapes and paper in the docstring."""

from crops_jax.losses.hierarchical_infonce.api import h_infonce

__all__ = ["h_infonce"]
