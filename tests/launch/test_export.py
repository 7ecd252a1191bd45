import numpy as np
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.runs.encoder import open_encoder
from launch.export import ExportArguments, export
from tests.model_folders import TEXTS, add_modules, write_bert


def test_an_exported_folder_encodes_equally_and_says_where_it_is_from(tmp_path):
    folder = add_modules(write_bert(tmp_path / "bert", layers=1), max_seq_length=20, prompts={"query": "the "})
    outcome = export(ExportArguments(run=str(folder), output=str(tmp_path / "exported")))
    assert outcome["architecture"] == "Transformer"
    assert (outcome["dim"], outcome["pooling"]) == (30, "mean")
    assert outcome["max_seq_length"] == {"query": 20, "document": 20}
    manifest = artifacts.read_manifest(tmp_path / "exported")
    assert manifest["kind"] == "encoder"
    assert manifest["inputs"]["run"]["fingerprint"] == artifacts.fingerprint(folder)
    before, after = open_encoder(folder), open_encoder(tmp_path / "exported")
    assert after.fingerprint == before.fingerprint
    for tower in ("query", "document"):
        np.testing.assert_array_equal(after.encode(TEXTS, tower=tower), before.encode(TEXTS, tower=tower))


def test_two_exports_have_the_same_bytes(tmp_path):
    folder = write_bert(tmp_path / "bert", layers=1)
    fingerprints = set()
    for name in ("one", "two"):
        export(ExportArguments(run=str(folder), output=str(tmp_path / name)))
        fingerprints.add(artifacts.fingerprint(tmp_path / name))
    assert len(fingerprints) == 1


def test_an_output_that_exists_is_kept(tmp_path):
    folder = write_bert(tmp_path / "bert", layers=1)
    export(ExportArguments(run=str(folder), output=str(tmp_path / "out")))
    with pytest.raises(InputError, match="add --overwrite"):
        export(ExportArguments(run=str(folder), output=str(tmp_path / "out")))
    export(ExportArguments(run=str(folder), output=str(tmp_path / "out"), overwrite=True))
    with pytest.raises(InputError, match="overlap"):
        export(ExportArguments(run=str(folder), output=str(folder), overwrite=True))
