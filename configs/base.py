"""What the other experiments start from: the defaults of crops_jax.config, spelled there with their reasons."""

from crops_jax.config import Config

CONFIG = Config()
