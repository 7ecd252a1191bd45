"""launch.embed in several processes, each of which takes its share of the shards."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.embeddings import open_embeddings
from launch.embed import EmbedArguments, embed
from tests import clusters
from tests.model_folders import TEXTS, write_bert

pytestmark = pytest.mark.slow


def test_two_processes_share_the_shards_and_one_finishes_what_they_left(tmp_path):
    folder = write_bert(tmp_path / "bert", layers=1)
    texts, output = tmp_path / "texts.parquet", tmp_path / "output"
    pq.write_table(pa.table({"id": [f"t{i}" for i in range(50)], "text": TEXTS * 5}), texts)
    shared = {"run": str(folder), "texts": str(texts), "tower": "document", "shard_size": 7}
    embed(EmbedArguments(output=str(tmp_path / "alone"), **shared))
    expected = open_embeddings(tmp_path / "alone")

    command = ["launch.embed", "--output", str(output)]
    command += [part for name, value in shared.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    differing = clusters.run(command, processes=2, devices=2, extra={1: ["--dtype", "int8"]})
    assert [ended.status for ended in differing] == [2, 2]
    assert "process 1 was not started as process 0 (layout" in differing[0].errors
    assert not output.exists()

    first, second = clusters.run(command, processes=2, devices=2)
    assert (first.status, second.status) == (0, 0), first.errors + second.errors
    assert json.loads(first.output)["shards_written"] == 8
    assert second.output == ""
    found = open_embeddings(output)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.array(), expected.array(), atol=1e-6)

    for lost in (2, 3, 5):
        (output / f"ids-{lost:05d}-of-00008.parquet").unlink()
    assert embed(EmbedArguments(output=str(output), **shared))["shards_written"] == 3
    np.testing.assert_allclose(open_embeddings(output).array(), expected.array(), atol=1e-6)
