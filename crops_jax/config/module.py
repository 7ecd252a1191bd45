"""Writes a configuration as the text of a Python module, which --help calls CONFIG."""

import dataclasses

from crops_jax.config.experiment import Config


def as_module(config: Config, *, heading: str) -> str:
    """Returns the text of a module whose CONFIG is the configuration; `heading` is its docstring.

    Equal configurations have equal texts, so that the text can be compared.
    """
    sections = {type(getattr(config, field.name)).__name__ for field in dataclasses.fields(config)}
    names = ", ".join(sorted({"Config"} | sections))
    return f'"""{heading}"""\n\nfrom crops_jax.config import {names}\n\nCONFIG = {config!r}\n'
