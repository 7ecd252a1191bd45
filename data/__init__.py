"""Programs that turn logs into training records, one per stage."""

from crops_jax import errors

errors.answer_while_importing()
