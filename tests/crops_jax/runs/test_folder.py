import json
import shutil

import numpy as np
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.records import RecordSource, write_records
from crops_jax.runs.folder import open_run
from tests.tiny_run import CONFIG, tiny_records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records")


def opened(run, records, config=CONFIG):
    with open_run(run, config=config, records=records, arguments={"config": "tiny"}) as path:
        return path


def test_a_new_run_holds_config_tokenizer_and_manifest(records, tmp_path):
    run = opened(tmp_path / "deep" / "run", records)
    assert json.loads((run / "config.json").read_text())["encoder"]["width"] == 16
    assert (run / "tokenizer" / "tokenizer.json").read_bytes() == (records / "tokenizer/tokenizer.json").read_bytes()
    manifest = artifacts.read_manifest(run)
    assert (manifest["program"], manifest["kind"]) == ("launch.train", "run")
    assert manifest["inputs"]["records"]["fingerprint"] == artifacts.fingerprint(records)
    assert [entry.name for entry in run.parent.iterdir()] == ["run"]


def test_the_same_run_opens_again_and_its_config_follows_what_may_change(records, tmp_path):
    run = opened(tmp_path / "run", records)
    before = artifacts.read_manifest(run)
    opened(run, records, CONFIG.replace(training={"log_every_steps": 7}))
    assert json.loads((run / "config.json").read_text())["training"]["log_every_steps"] == 7
    assert artifacts.read_manifest(run) == before


def test_another_configuration_is_refused_with_its_fields(records, tmp_path):
    run = opened(tmp_path / "run", records)
    other = CONFIG.replace(optimizer={"learning_rate": 1e-5}, encoder={"layers": 2})
    with pytest.raises(InputError, match=r"encoder.layers: 1 there, 2 here; optimizer.learning_rate: 0.003 there"):
        opened(run, records, other)


def test_other_records_and_another_tokenizer_are_refused(records, tmp_path):
    run = opened(tmp_path / "run", records)
    with pytest.raises(InputError, match="trained on other records"):
        opened(run, tiny_records(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="records of another tokenizer"):
        opened(run, tiny_records(tmp_path / "tokens", words=30))


def test_records_without_a_positive_are_refused_before_a_run_is_made(records, tmp_path):
    without = tmp_path / "without"
    shutil.copytree(records / "tokenizer", without / "tokenizer")
    shutil.copy(records / "manifest.json", without)
    for split in ("train", "dev"):
        rows = [
            record._replace(document_levels=np.minimum(record.document_levels, 3))
            for record in RecordSource(records, split=split)
        ]
        write_records(without, rows, num_shards=1, split=split)
    with pytest.raises(InputError, match=r"none of the 22 queries of split train has a positive, .* level 4 or 5"):
        opened(tmp_path / "run", without)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(records, tmp_path):
    with pytest.raises(InputError, match=r"has 45 tokens and encoder.vocabulary_size is 40"):
        opened(tmp_path / "run", records, CONFIG.replace(encoder={"vocabulary_size": 40}))
    assert not (tmp_path / "run").exists()


def test_early_stopping_without_a_dev_split_is_refused_before_a_run_is_made(records, tmp_path):
    config = CONFIG.replace(training={"early_stopping_evaluations": 3})
    with pytest.raises(InputError, match=r"has no split dev, whose metric --training.early-stopping-evaluations"):
        opened(tmp_path / "run", tiny_records(tmp_path / "no dev", dev=0), config)
    assert not (tmp_path / "run").exists()
    opened(tmp_path / "run", records, config)
    with pytest.raises(InputError, match=r"training.early_stopping_evaluations: 3 there, 4 here"):
        opened(tmp_path / "run", records, CONFIG.replace(training={"early_stopping_evaluations": 4}))


def test_what_is_no_run_is_refused(records, tmp_path):
    with pytest.raises(InputError, match=r"written by data\.write_records and is not a run"):
        opened(tiny_records(tmp_path / "records"), records)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    # launch.train has no --overwrite to advise.
    with pytest.raises(InputError, match=r"holds other files and no manifest\.json; choose another output"):
        opened(tmp_path / "mine", records)
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="holds run, not records"):
        opened(tmp_path / "second", opened(tmp_path / "first", records))
    with pytest.raises(InputError, match="no such directory"):
        opened(tmp_path / "second", tmp_path / "absent")


def test_two_processes_do_not_train_in_one_run(records, tmp_path):
    with open_run(tmp_path / "run", config=CONFIG, records=records, arguments={}):
        with pytest.raises(InputError, match="another process trains in"):
            opened(tmp_path / "run", records)
    opened(tmp_path / "run", records)
