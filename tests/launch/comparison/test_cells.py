"""Cells and the small files of their results: what is finished, what is run again, and what is refused."""

import json
from pathlib import Path

import pytest

from crops_jax.errors import InputError
from launch.comparison.cells import (
    Cell,
    Result,
    cells_of,
    claim_run,
    is_finished,
    read_result,
    result_file,
    stored_results,
    tuning_file,
    write_result,
    write_tuning,
)
from launch.comparison.systems import SYSTEMS

CROPS = Cell(system=SYSTEMS["crops"], architecture="hashed", seed=2)
RESULT = Result(
    system="crops",
    architecture="hashed",
    seed=2,
    inputs={"split": "a", "config": "b"},
    figures={"step_seconds": 0.5},
    queries={"ndcg@4": "f"},
    values={"ndcg@4": [0.25, 1.0]},
)


def test_cells_come_seed_by_seed_and_what_does_not_learn_has_one_seed():
    names = [cell.name for cell in cells_of([SYSTEMS["bm25"], SYSTEMS["nce"]], seeds=2)]
    assert names == ["bm25-none-0", "nce-transformer-0", "nce-hashed-0", "nce-transformer-1", "nce-hashed-1"]


def test_a_result_is_read_as_it_was_written(tmp_path):
    file = result_file(tmp_path, CROPS)
    assert file == tmp_path / "results" / "crops-hashed-2.json"
    write_result(file, RESULT)
    assert read_result(file) == RESULT
    assert file.stat().st_size < 400


def test_a_cell_is_finished_only_for_the_inputs_of_its_result(tmp_path):
    file = result_file(tmp_path, CROPS)
    assert not is_finished(file, RESULT.inputs)
    write_result(file, RESULT)
    assert is_finished(file, {"split": "a", "config": "b"})
    assert not is_finished(file, {"split": "a", "config": "c"})
    assert not is_finished(file, {"split": "a"})


def test_only_results_of_the_same_data_are_compared(tmp_path):
    write_result(result_file(tmp_path, CROPS), RESULT)
    write_tuning(tuning_file(tmp_path, CROPS), inputs={}, found={"1": 0.5})
    (tmp_path / "results" / ".nce.json.0000.tmp").write_text("{")
    assert stored_results(tmp_path, among={"split": "a"}) == [RESULT]
    assert stored_results(tmp_path, among={"split": "other"}) == []


def test_a_run_of_other_inputs_is_removed_and_one_of_the_same_inputs_stays(tmp_path):
    folder = tmp_path / "runs" / "crops"
    claim_run(folder, {"config": "a"})
    (folder / "checkpoint").write_text("weights")
    claim_run(folder, {"config": "a"})
    assert (folder / "checkpoint").exists()
    claim_run(folder, {"config": "b"})
    assert not (folder / "checkpoint").exists()
    (folder / "inputs.json").unlink()
    (folder / "checkpoint").write_text("half")
    claim_run(folder, {"config": "b"})
    assert not (folder / "checkpoint").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format must be 1"),
        ({"seed": "two"}, "seed must be a whole number"),
        ({"values": {"ndcg@4": [0.5, "high"]}}, r"values\.ndcg@4"),
        ({"queries": {}}, r"queries\.ndcg@4"),
        ({"figures": {"step_seconds": None}}, r"figures\.step_seconds"),
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
    file.write_text('{"format": 1, "sys')
    with pytest.raises(InputError, match="not JSON"):
        read_result(file)
