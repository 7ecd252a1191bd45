"""A run of training: state, optimiser, step and loop, and the two models that it trains."""

from crops_jax.training.dual_encoder import check_machine, enable_compilation_cache, train

__all__ = [
    "check_machine",
    "enable_compilation_cache",
    "train",
]
