"""Weights read from a file straight into arrays that are split over a mesh."""

import math
from collections import defaultdict
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.models.dual_encoder import from_parameters
from crops_jax.pretrained import tensor_files
from crops_jax.pretrained.tensor_names import names
from crops_jax.training.dual_encoder import initial_parameters
from tests.model_folders import random_parameters, small_config, write_bert


@pytest.fixture
def readings(monkeypatch):
    """Shapes of the parts that were read of each tensor."""
    found = defaultdict(list)

    class Slice:
        def __init__(self, name, stored):
            self.name, self.stored = name, stored

        def __getitem__(self, part):
            read = self.stored[part]
            found[self.name].append(read.shape)
            return read

        def get_shape(self):
            return self.stored.get_shape()

        def get_dtype(self):
            return self.stored.get_dtype()

    @contextmanager
    def watched(file, framework):
        with safe_open(file, framework=framework) as opened:
            opened_keys = opened.keys

            class File:
                keys = staticmethod(opened_keys)

                @staticmethod
                def get_slice(name):
                    return Slice(name, opened.get_slice(name))

            yield File

    monkeypatch.setattr(tensor_files, "safe_open", watched)
    return found


def test_each_part_is_read_once_and_none_is_larger_than_a_device_holds(tmp_path, readings):
    config = small_config(layers=1, weights=str(write_bert(tmp_path / "bert", layers=1)))
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, model=2))
    found = initial_parameters(config, seed=0, mesh=mesh)["tower"]
    stored = load_file(tmp_path / "bert" / "model.safetensors")
    for path, name in names(config.encoder).items():
        leaf = found
        for part in path.split("/"):
            leaf = leaf[int(part) if part.isdecimal() else part]
        np.testing.assert_array_equal(leaf, stored[name].T if path.endswith("kernel") else stored[name])
        held = math.prod(leaf.sharding.shard_shape(leaf.shape))
        assert {math.prod(shape) for shape in readings[name]} == {held}
        assert held * len(readings[name]) == leaf.size
    # Rows are outputs in the file: over "model"; columns are inputs: over "fsdp".
    assert readings["encoder.layer.0.intermediate.dense.weight"] == [(26, 15)] * 4
    assert readings["encoder.layer.0.output.dense.weight"] == [(15, 26)] * 4
    assert readings["encoder.layer.0.output.LayerNorm.weight"] == [(30,)]


def test_both_towers_start_from_one_folder_over_a_mesh(tmp_path):
    folder = write_bert(tmp_path / "bert", layers=1)
    config = small_config(layers=1, weights=str(folder), shared_towers=False)
    found = initial_parameters(config, seed=0, mesh=sharding.make_mesh(MeshConfig(fsdp=2, model=2)))
    expected = random_parameters(small_config(layers=1))["tower"]
    for tower in ("query_tower", "document_tower"):
        assert jax.tree.all(jax.tree.map(lambda one, other: (np.asarray(one) == other).all(), found[tower], expected))
    assert found["log_inverse_temperature"] == np.float32(-np.log(config.loss.initial_temperature))
    from_parameters(config, found)
