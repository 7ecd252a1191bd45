"""Programs that turn logs into training records, one program for each stage."""

from crops_jax import errors

errors.answer_while_importing()
