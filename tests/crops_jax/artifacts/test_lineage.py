"""The chain logs -> split -> labels -> records -> run -> embeddings -> labels again, and what is asked of it."""

import pytest

from crops_jax.artifacts import MANIFEST, new_manifest, read_manifest, write_manifest
from crops_jax.artifacts.lineage import chain, input_fingerprint, input_manifest, line, manifest_or_none, read_from
from crops_jax.errors import InputError

STEPS = {
    "split": ("data.hold_out", "logs", {"logs": "logs"}),
    "labels": ("data.mine", "labels", {"logs": "split", "knowledge_documents": "written"}),
    "records": ("data.write_records", "records", {"labels": "labels", "logs": "split"}),
    "run": ("launch.train", "run", {"records": "records"}),
    "embeddings": ("launch.embed", "embeddings", {"run": "run", "texts": "split"}),
    "more": ("launch.mine_negatives", "labels", {"labels": "labels", "document_embeddings": "embeddings"}),
    "most": ("launch.mine_negatives", "labels", {"labels": "more", "document_embeddings": "embeddings"}),
}


@pytest.fixture
def folders(tmp_path):
    """logs and written have no manifest: somebody brought them."""
    for name in ("logs", "written"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table").write_text(name)
    for name, (program, kind, inputs) in STEPS.items():
        (tmp_path / name).mkdir()
        paths = {of: tmp_path / place for of, place in inputs.items()}
        write_manifest(tmp_path / name, new_manifest(program=program, kind=kind, arguments={}, inputs=paths))
    return tmp_path


def test_a_manifest_is_there_or_not_or_broken(folders):
    assert manifest_or_none(folders / "logs") is None
    assert manifest_or_none(folders / "nothing") is None
    assert manifest_or_none(folders / "run") == read_manifest(folders / "run")
    (folders / "run" / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match=r"manifest.program must be text"):
        manifest_or_none(folders / "run")


def test_inputs_by_name(folders):
    run, split = (read_manifest(folders / name) for name in ("run", "split"))
    assert input_manifest(run, "records") == read_manifest(folders / "records")
    assert input_fingerprint(run, "records") == read_manifest(folders / "records")["fingerprint"]
    assert input_manifest(split, "logs") is None
    assert len(input_fingerprint(split, "logs")) == 64
    for manifest in (run, None):
        assert input_manifest(manifest, "labels") is None
        assert input_fingerprint(manifest, "labels") is None


def test_the_chain_goes_through_every_input(folders):
    programs = [link["program"] for link in chain(read_manifest(folders / "embeddings"))]
    assert programs[:3] == ["launch.embed", "launch.train", "data.write_records"]
    assert sorted(programs[3:]) == ["data.hold_out", "data.hold_out", "data.hold_out", "data.mine"]
    assert list(chain(None)) == []


def test_the_line_of_one_input_goes_back_to_its_beginning(folders):
    programs = [link["program"] for link in line(read_manifest(folders / "most"), "labels")]
    assert programs == ["launch.mine_negatives", "launch.mine_negatives", "data.mine"]
    assert [link["program"] for link in line(read_manifest(folders / "run"), "labels")] == ["launch.train"]
    assert list(line(None, "labels")) == []


@pytest.mark.parametrize("labels", ["labels", "more", "most"])
def test_what_labels_were_mined_from(folders, labels):
    split = read_manifest(folders / "split")
    manifest = read_manifest(folders / labels)
    assert read_from(manifest, "logs") == (split["fingerprint"], split)
    fingerprint, written = read_from(manifest, "knowledge_documents")
    assert written is None
    assert fingerprint == input_fingerprint(read_manifest(folders / "labels"), "knowledge_documents")


def test_labels_that_somebody_brought_tell_nothing(folders):
    assert read_from(None, "logs") is None
    path = folders / "own"
    path.mkdir()
    inputs = {"labels": folders / "written", "document_embeddings": folders / "embeddings"}
    write_manifest(path, new_manifest(program="launch.mine_negatives", kind="labels", arguments={}, inputs=inputs))
    assert read_from(read_manifest(path), "logs") is None
