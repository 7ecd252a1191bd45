"""The configuration that the other experiments start from. It has the defaults that crops_jax.config explains."""

from crops_jax.config import Config

CONFIG = Config()
