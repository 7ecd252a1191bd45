"""The behaviour that all programs share: arguments, the outcome line, exit statuses, and chains of programs."""

from crops_jax.program.arguments import ConfigArgument, called_command, load_config, parse
from crops_jax.program.command_line import run

__all__ = [
    "ConfigArgument",
    "called_command",
    "load_config",
    "parse",
    "run",
]
