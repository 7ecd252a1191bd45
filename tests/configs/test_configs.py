"""Every configuration, with all its fields, as a golden file: a changed default shows in review.

`python -m tests.configs.test_configs` writes them anew.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from crops_jax import program
from tests.paths import ROOT

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(file.stem for file in (ROOT / "configs").glob("*.py") if file.stem != "__init__")


def as_text(name: str) -> str:
    return json.dumps(dataclasses.asdict(program.load_config(name)), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_those_of_the_golden_file(name):
    assert as_text(name) == (GOLDEN / f"{name}.json").read_text()


def test_every_golden_file_has_its_configuration():
    assert {"tiny_cpu", "minilm"} <= set(NAMES)
    assert sorted(file.stem for file in GOLDEN.iterdir()) == NAMES


if __name__ == "__main__":
    for each in NAMES:
        (GOLDEN / f"{each}.json").write_text(as_text(each))
