"""The programs that train, evaluate and serve, and those that call several programs one after the other."""

from crops_jax import errors

errors.answer_while_importing()
