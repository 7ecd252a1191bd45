"""The configuration of a run as config.json and back, and which of its fields a resumed run can change.

A resumed run must keep every field that decides its numbers. It can change where it runs and how often it writes.

A run of an earlier version lacks the fields that were added since. They are read with their defaults, so the default of
a new field must be what the versions before it did.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.config.cross_encoder import CrossEncoderConfig
from crops_jax.config.experiment import Config
from crops_jax.errors import InputError
from crops_jax.storage.names import shown_in

ConfigSections = Config | CrossEncoderConfig
"""A configuration whose fields are sections. A section that both classes have means the same in both."""

CONFIG = "config.json"

_FREE_SECTIONS = {"mesh"}
_FREE_FIELDS = {
    "training.log_every_steps",
    "training.evaluate_every_steps",
    "training.checkpoint_every_steps",
    "training.checkpoint_every_seconds",
    "training.hang_seconds",
    "training.keep_last",
    "training.profile_steps",
    "training.skip_nonfinite_steps",
    "data.workers",
    "data.read_threads",
    "data.cache",
}


def differing_fields(stored: dict[str, Any], config: ConfigSections) -> list[str]:
    """Returns the fields in which a configuration contradicts that of a run.

    An entry is such as "optimizer.learning_rate: 1e-05 there, 2e-05 here", with the value of the run first. A field
    that a section of the run lacks has its default. Every other field that one of the two lacks is "(absent)". The
    mesh, the intervals of logs, evaluations and checkpoints, profiling, the number of steps that can be skipped, the
    numbers of reading workers and threads, and the cache of shards can change.

    Args:
      stored: the content of the run's config.json, or what `binding_sections` returned for it.
      config: the configuration to compare with it.
    """
    current, of_run = _fields(binding_sections(config)), _fields(_binding(_with_defaults(stored, type(config))))
    return [
        f"{name}: {of_run.get(name, '(absent)')} there, {current.get(name, '(absent)')} here"
        for name in sorted(current.keys() | of_run.keys())
        if name not in current or name not in of_run or of_run[name] != current[name]
    ]


def binding_sections(config: ConfigSections) -> dict[str, dict[str, Any]]:
    """Returns the fields that a resumed run must keep, by section, as JSON stores them: tuples are lists."""
    return _binding(as_sections(config))


def as_sections(config: ConfigSections) -> dict[str, dict[str, Any]]:
    """Returns all fields by section, as JSON stores them: tuples are lists.

    Weights in a bucket have their path there, because each machine, and each version of them, has a copy of its own.
    """
    return shown_in(asdict(config))


def config_hash(sections: dict[str, dict[str, Any]]) -> str:
    """Returns the SHA-256 of what `binding_sections` returned, in hexadecimal."""
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


def _with_defaults(sections: Mapping[str, Mapping[str, Any]], kind: type[ConfigSections]) -> dict[str, dict[str, Any]]:
    """Returns stored sections with the defaults of the fields that they lack, as JSON stores them.

    A section that is missing as a whole stays missing, unless it was added later (Config.LATER_SECTIONS).
    """
    defaults = json.loads(json.dumps(asdict(kind())))
    later = {name: {} for name in Config.LATER_SECTIONS if name in defaults}
    return {name: {**defaults.get(name, {}), **fields} for name, fields in {**later, **sections}.items()}


def _binding(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        section: {name: value for name, value in fields.items() if f"{section}.{name}" not in _FREE_FIELDS}
        for section, fields in sections.items()
        if section not in _FREE_SECTIONS
    }


def _fields(sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()}


def write_config(file: Path, config: ConfigSections) -> None:
    """Writes the config.json of a run."""
    write_text(file, json.dumps(as_sections(config), indent=2, sort_keys=True) + "\n")


def read_sections(file: Path, *, remedy: str) -> dict[str, dict[str, Any]]:
    """Reads the fields of a run's config.json by section, whichever of the two classes wrote them.

    Raises InputError, which ends with `remedy`, when the file is missing or is not an object of objects.
    """
    sections = read_object(file, remedy=remedy)
    for name, section in sections.items():
        typed(file, name, section, dict, remedy=remedy)
    return sections


def read_config(file: Path) -> Config:
    """Reads the config.json of a run of launch.train. A field that a section lacks has its default.

    Raises InputError when the file is missing, or when it is not a configuration of this version.
    """
    sections = _with_defaults(read_sections(file, remedy="the run is incomplete: train again"), Config)
    try:
        if missing := [field.name for field in fields(Config) if field.name not in sections]:
            raise ValueError(f"section {missing[0]} is missing")
        kinds = {field.name: type(getattr(Config(), field.name)) for field in fields(Config)}
        # JSON has no tuples.
        fixed = {
            section: {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            for section, values in sections.items()
        }
        return Config(**{section: kinds[section](**values) for section, values in fixed.items()})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{file}: not a configuration of this version ({error}); train again, or use that version"
        ) from error
