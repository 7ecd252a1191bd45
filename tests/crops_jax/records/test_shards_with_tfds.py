"""TensorFlow reads what we write: tfds.builder_from_directory on the real thing."""

import os
import subprocess

import numpy as np
import pytest

from crops_jax.records import write_records
from crops_jax.records.query_record import feature_values
from tests.paths import ROOT
from tests.record_examples import example

PYTHON = ROOT / ".venv-peers" / "bin" / "python"

pytestmark = [pytest.mark.slow, pytest.mark.peers]


@pytest.mark.parametrize("scored", [False, True])
def test_tfds_reads_every_field_of_every_record(tmp_path, scored):
    if not PYTHON.exists():
        pytest.skip("no .venv-peers; make peers builds it")
    written = {
        "train": [example(i, documents=i % 4, labelled=3 * i) for i in range(11)],
        "dev": [example(40 + i) for i in range(3)],
    }
    if scored:
        written = {split: list(map(with_scores, examples)) for split, examples in written.items()}
    for split, examples in written.items():
        write_records(tmp_path / "records", examples, num_shards=3, split=split)
    script = ROOT / "tests" / "peers" / "read_with_tfds.py"
    done = subprocess.run(
        [PYTHON, script, tmp_path / "records", tmp_path / "found.npz"],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "found.npz") as found:
        for split, examples in written.items():
            assert found[f"{split}/num_examples"] == len(examples)
            for number, record in enumerate(examples):
                for name, value in feature_values(record).items():
                    np.testing.assert_array_equal(found[f"{split}/{number}/{name}"], value)
                    assert found[f"{split}/{number}/{name}"].dtype == value.dtype


def with_scores(record):
    scores = np.linspace(0, 1, len(record.labelled_ids), dtype=np.float32)
    return record._replace(labelled_scores=np.where(scores > 0.6, np.float32(np.nan), scores))
