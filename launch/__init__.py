"""Programs that use accelerators."""

from crops_jax import early_termination

early_termination.answer_while_importing()
