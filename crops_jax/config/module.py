"""Writes a configuration as text: as a Python module, which --help calls CONFIG, or as its changes of the defaults."""

import dataclasses
import json

from crops_jax.config.experiment import Config


def as_module(config: Config, *, heading: str) -> str:
    """Returns the text of a module whose CONFIG is the configuration; `heading` is its docstring.

    Equal configurations have equal texts, so that the text can be compared.
    """
    sections = {type(getattr(config, field.name)).__name__ for field in dataclasses.fields(config)}
    names = ", ".join(sorted({"Config"} | sections))
    return f'"""{heading}"""\n\nfrom crops_jax.config import {names}\n\nCONFIG = {config!r}\n'


def changes_of_defaults(config: Config) -> str:
    """Returns the fields that differ from the defaults, as JSON with sorted keys.

    A field or a section that a later version adds does not change the text of a configuration with its defaults.
    """
    given, defaults = dataclasses.asdict(config), dataclasses.asdict(Config())
    changes = {
        section: {name: value for name, value in fields.items() if value != defaults[section][name]}
        for section, fields in given.items()
        if section not in Config.LATER_SECTIONS or fields != defaults[section]
    }
    return json.dumps(changes, sort_keys=True)
