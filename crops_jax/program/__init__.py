"""How every program behaves: arguments, the outcome line, exit statuses, and programs in a row."""

from crops_jax.program.command_line import ConfigArgument, load_config, parse, run

__all__ = [
    "ConfigArgument",
    "load_config",
    "parse",
    "run",
]
