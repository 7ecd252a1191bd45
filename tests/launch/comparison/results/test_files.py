"""The small files of results: what is finished, what is compared, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from crops_jax.errors import InputError
from launch.comparison.cells import Cell
from launch.comparison.results.files import (
    is_finished,
    measured,
    read_result,
    read_tuning,
    result_file,
    stored_results,
    stored_tuning,
    tuning_file,
    write_result,
    write_tuning,
)
from launch.comparison.results.packed_values import pack
from launch.comparison.systems import SYSTEMS
from tests.launch.comparison.results.made_up import made_up_result

CROPS = Cell(system=SYSTEMS["crops"], architecture="hashed", seed=2)
RESULT = made_up_result(
    "crops",
    "hashed",
    2,
    {"ndcg@4": [0.25, 1.0, 0.1], "ndcg@10": [0.5, 0.25]},
    fingerprint="f",
    means_alone=["ndcg@10"],
    inputs={"split": "a", "config": "b"},
    figures={"step_seconds": 0.5},
)


def test_a_result_is_read_as_it_was_written(tmp_path):
    file = result_file(tmp_path / "results", CROPS)
    assert file == tmp_path / "results" / "crops-hashed-2.json"
    write_result(file, RESULT)
    assert read_result(file) == RESULT


def test_all_but_single_queries_is_readable(tmp_path):
    write_result(file := result_file(tmp_path, CROPS), RESULT)
    stored = json.loads(file.read_text())
    packed = stored["metrics"]["ndcg@4"].pop("values")
    assert isinstance(packed, str)
    assert stored == {
        "format": 2,
        "system": "crops",
        "architecture": "hashed",
        "seed": 2,
        "inputs": {"split": "a", "config": "b"},
        "figures": {"step_seconds": 0.5},
        "conditions": {
            "seconds": 60.0,
            "packages": {"jax": "1", "flax": "2", "numpy": "3"},
            "processor": "A processor",
            "cores": 2,
            "fingerprints": {"records": "r"},
        },
        "metrics": {
            "ndcg@4": {"mean": 0.45, "queries": 3, "fingerprint": "f"},
            "ndcg@10": {"mean": 0.375, "queries": 2, "fingerprint": "f"},
        },
    }


def test_the_mean_is_that_of_the_values_as_they_are_stored():
    values = np.random.default_rng(0).random(1000)
    found = measured(values, fingerprint="f")
    assert found.mean == pytest.approx(values.mean(), abs=1e-7)
    assert found.mean == round(float(np.mean(found.values)), 8)
    assert measured(values, fingerprint="f", with_values=False).mean == found.mean


def test_a_cell_is_finished_only_for_the_inputs_of_its_result(tmp_path):
    file = result_file(tmp_path, CROPS)
    assert not is_finished(file, RESULT.inputs)
    write_result(file, RESULT)
    assert is_finished(file, {"split": "a", "config": "b"})
    assert not is_finished(file, {"split": "a", "config": "c"})
    assert not is_finished(file, {"split": "a"})
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    assert not is_finished(file, {"split": "a", "config": "b"})


def test_only_results_of_the_same_data_are_compared(tmp_path):
    write_result(result_file(tmp_path, CROPS), RESULT)
    write_tuning(tuning_file(tmp_path, CROPS), inputs={}, found={"1": 0.5})
    (tmp_path / ".nce-hashed-0.json.0000.tmp").write_text("{")
    (tmp_path / "comparison.json").write_text("{}")
    assert stored_results(tmp_path, among={"split": "a"}) == [RESULT]
    assert stored_results(tmp_path, among={"split": "other"}) == []


def test_the_learning_rates_are_read_as_they_were_written(tmp_path):
    file = tuning_file(tmp_path / "results", CROPS)
    assert file.name == "crops-hashed.tuning.json"
    write_tuning(file, inputs={"1": "a"}, found={"1": 0.5, "2": 0.25})
    assert read_tuning(file) == {"1": 0.5, "2": 0.25}
    assert is_finished(file, {"1": "a"})
    assert stored_tuning(tmp_path / "results", [RESULT, RESULT]) == {"crops-hashed": {1.0: 0.5, 2.0: 0.25}}
    assert stored_tuning(tmp_path, [RESULT]) == {}
    file.write_text('{"format": 2, "found": {"1": null}}')
    with pytest.raises(InputError, match=r"found\.1 must be a number"):
        read_tuning(file)


def change_metric(**changes) -> dict:
    return {"metrics": {"ndcg@4": {"mean": 0.45, "queries": 3, "fingerprint": "f"} | changes}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 1}, "format must be 2"),
        ({"seed": "two"}, "seed must be a whole number"),
        ({"figures": {"step_seconds": None}}, r"figures\.step_seconds"),
        ({"conditions": {"seconds": 1.0, "packages": {}, "processor": "p"}}, r"conditions\.cores"),
        (change_metric(fingerprint=None), r"metrics\.ndcg@4\.fingerprint"),
        (change_metric(mean="high"), r"metrics\.ndcg@4\.mean"),
        (change_metric(values=[0.5]), r"metrics\.ndcg@4\.values must be text"),
        (change_metric(values="AAAA"), r"metrics\.ndcg@4\.values: packed values are damaged"),
        (change_metric(values=pack([0.5])), "has the mean 0.45 of 3 queries, but its values"),
    ],
)
def test_a_damaged_result_is_named(tmp_path, change, words):
    file = result_file(tmp_path, CROPS)
    write_result(file, RESULT)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=words) as refusal:
        read_result(file)
    assert str(file) in str(refusal.value)
    assert "remove the file" in str(refusal.value)


def test_a_torn_result_is_named(tmp_path):
    file = Path(tmp_path / "crops.json")
    file.write_text('{"format": 2, "sys')
    with pytest.raises(InputError, match="not JSON"):
        read_result(file)
