import dataclasses
import hashlib
import json

import pytest

from crops_jax.program import parse
from data.simulate import simulate
from data.world.constants import WorldConstants
from data.world.presets import PRESETS, named_by
from data.world.targets import TARGETS, Target, compare_with_targets


def world_of(*arguments):
    return parse(simulate, ["--output", "logs", *arguments]).world


def test_the_small_world_is_the_default():
    assert PRESETS["small"] == WorldConstants()
    assert world_of() == world_of("--world", "small") == PRESETS["small"]


FROZEN = "cbcf990b2a00d48b66ef21550ef0b8d9ce484a526313c86b665eb07048edab17"


def test_the_constants_of_the_large_world_are_those_that_were_frozen():
    """They were frozen in commit 35d2d34, before a system was compared. Results of other constants need a new world."""
    constants = json.dumps(dataclasses.asdict(PRESETS["large"]), sort_keys=True, default=str)
    assert hashlib.sha256(constants.encode()).hexdigest() == FROZEN


@pytest.mark.parametrize("order", [["--world", "large", "--users", "77"], ["--users", "77", "--world=large"]])
def test_every_constant_overrides_the_preset(order):
    assert world_of(*order) == dataclasses.replace(PRESETS["large"], users=77)


def test_a_value_of_the_small_world_overrides_the_large_one():
    assert world_of("--world", "large", "--documents", "3500").documents == 3500


def test_an_unknown_world_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        world_of("--world", "huge")
    assert ended.value.code == 2
    assert "huge" in capsys.readouterr().err
    assert named_by(["--world"]) == PRESETS["small"]


def test_every_target_has_a_tolerance_and_a_source():
    assert all(target.tolerance > 0 and len(target.source) > 20 for target in TARGETS.values())


def test_comparison_with_targets(monkeypatch):
    targets = {name: Target(value=0.5, tolerance=0.1, source="by hand") for name in ("in", "border", "out", "none")}
    monkeypatch.setattr("data.world.targets.TARGETS", targets)
    compared = compare_with_targets({"in": 0.45, "border": 0.6, "out": 0.39, "none": None})
    assert [compared[name]["within"] for name in targets] == [True, True, False, None]
    assert compared["out"] == {"measured": 0.39, "value": 0.5, "tolerance": 0.1, "within": False}
