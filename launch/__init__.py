"""The programs that use accelerators."""

from crops_jax import errors

errors.answer_while_importing()
