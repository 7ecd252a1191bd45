"""Which configurations are of one run: what decides the numbers may not change, where it runs and how often it writes
may.
"""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from crops_jax.config.cross_encoder import CrossEncoderConfig
from crops_jax.config.experiment import Config
from crops_jax.errors import InputError

ConfigSections = Config | CrossEncoderConfig
"""A dataclass whose fields are sections; what two of them share decides the same."""

_FREE_SECTIONS = {"mesh"}
_FREE_FIELDS = {
    "training.log_every_steps",
    "training.evaluate_every_steps",
    "training.checkpoint_every_steps",
    "training.keep_last",
    "training.profile_steps",
    "training.skip_nonfinite_steps",
    "data.workers",
}


def differing_fields(stored: dict[str, Any], config: ConfigSections) -> list[str]:
    """Fields in which a configuration contradicts that of a run: "optimizer.learning_rate: 1e-05 there, 2e-05 here".

    A field that one of the two lacks is "(absent)". Mesh, the cadence of logs, evaluations and checkpoints, profiling,
    the steps that may be skipped, and the number of reading workers are free to change.

    Args:
      stored: config.json of the run, or the sections of `binding_sections`.
    """
    here, there = _fields(binding_sections(config)), _fields(_binding(stored))
    return [
        f"{name}: {there.get(name, '(absent)')} there, {here.get(name, '(absent)')} here"
        for name in sorted(here.keys() | there.keys())
        if name not in here or name not in there or there[name] != here[name]
    ]


def binding_sections(config: ConfigSections) -> dict[str, dict[str, Any]]:
    """The fields that a run may not change, by section, as they are read back: JSON has lists for tuples."""
    return _binding(json.loads(json.dumps(asdict(config))))


def config_hash(sections: dict[str, dict[str, Any]]) -> str:
    """SHA-256 of `binding_sections`."""
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


def _binding(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        section: {name: value for name, value in fields.items() if f"{section}.{name}" not in _FREE_FIELDS}
        for section, fields in sections.items()
        if section not in _FREE_SECTIONS
    }


def _fields(sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()}


def read_config(file: Path) -> Config:
    """The configuration of a run of launch.train. Raises InputError where the file is missing, or is none of these."""
    try:
        sections = json.loads(file.read_text())
        if missing := [name for name in _fields(asdict(Config())) if name not in _fields(sections)]:
            raise ValueError(f"{missing[0]} is missing")
        kinds = {field.name: type(getattr(Config(), field.name)) for field in fields(Config)}
        # JSON has no tuples.
        fixed = {
            section: {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            for section, values in sections.items()
        }
        return Config(**{section: kinds[section](**values) for section, values in fixed.items()})
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; the run is incomplete") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file}: not a configuration of this version ({error}); train again, or use that version"
        ) from error
