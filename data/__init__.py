"""Programs that turn logs into training records, one per stage."""

from crops_jax import early_termination

early_termination.answer_while_importing()
