"""Cells in their order, and the folders of their runs."""

from launch.comparison.cells import cells_of, claim_run
from launch.comparison.systems import SYSTEMS


def test_cells_come_seed_by_seed_and_what_does_not_learn_has_one_seed():
    names = [cell.name for cell in cells_of([SYSTEMS["bm25"], SYSTEMS["nce"]], seeds=2)]
    assert names == ["bm25-none-0", "nce-transformer-0", "nce-hashed-0", "nce-transformer-1", "nce-hashed-1"]


def test_each_system_has_its_own_number_of_seeds_where_none_is_given():
    names = [cell.name for cell in cells_of([SYSTEMS["untrained"], SYSTEMS["crops_binary"]], seeds=None)]
    assert names == [
        *("untrained-transformer-0", "untrained-hashed-0", "crops_binary-transformer-0"),
        *("untrained-transformer-1", "untrained-hashed-1", "crops_binary-transformer-1"),
        "crops_binary-transformer-2",
    ]


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
