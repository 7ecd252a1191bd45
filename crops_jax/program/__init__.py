"""The behaviour that all programs share: arguments, progress, the outcome, exit statuses, and chains of programs."""

from typing import TYPE_CHECKING

from crops_jax.lazy_exports import loaded_on_use

if TYPE_CHECKING:
    from crops_jax.program.arguments import ConfigArgument, called_command, load_config, parse
    from crops_jax.program.command_line import run
    from crops_jax.program.progress import say

__all__ = [
    "ConfigArgument",
    "called_command",
    "load_config",
    "parse",
    "run",
    "say",
]

# Folders of the library show progress, and need neither arguments nor what fills them.
__getattr__ = loaded_on_use(
    __name__,
    {
        "arguments": ["ConfigArgument", "called_command", "load_config", "parse"],
        "command_line": ["run"],
        "progress": ["say"],
    },
)
