"""Training: the state, the optimiser, the step and the loop, and the two kinds of models that the loop trains."""

from crops_jax.training.dual_encoder import check_machine, enable_compilation_cache, train

__all__ = [
    "check_machine",
    "enable_compilation_cache",
    "train",
]
