from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.errors import InputError
from crops_jax.models.dual_encoder import abstract_dual_encoder
from tests.tiny_run import CONFIG


def specs(tree, mesh):
    leaves = jax.tree_util.tree_leaves_with_path(sharding.tree_shardings(tree, mesh))
    return {sharding.path_name(path): place.spec for path, place in leaves}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(model=2), (4, 1, 2)),
        (MeshConfig(data=2, model=-1), (2, 1, 4)),
        (MeshConfig(data=2, fsdp=-1), (2, 4, 1)),
        (MeshConfig(fsdp=2, model=2), (2, 2, 2)),
        # One configuration for any number of chips: no more than there are.
        (MeshConfig(fsdp=16), (1, 8, 1)),
        (MeshConfig(fsdp=16, model=2), (1, 4, 2)),
        (MeshConfig(data=1, model=1), (1, 1, 1)),
        (MeshConfig(data=3, model=2), (3, 1, 2)),
    ],
)
def test_mesh_shapes(config, shape):
    mesh = sharding.make_mesh(config)
    assert mesh.devices.shape == shape
    assert mesh.axis_names == ("data", "fsdp", "model")
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert sharding.num_groups(mesh) == shape[0] * shape[1]
    assert sharding.own_groups(mesh) == tuple(range(shape[0] * shape[1]))


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"mesh.fsdp x mesh.model = 1 x 3 does not divide the 8 devices"):
        sharding.make_mesh(MeshConfig(model=3))
    with pytest.raises(InputError, match=r"mesh.fsdp x mesh.model = 3 x 1 does not divide the 8 devices"):
        sharding.make_mesh(MeshConfig(fsdp=3))
    with pytest.raises(InputError, match=r"= 8 x 1 x 2 needs 16 devices and 8 are here"):
        sharding.make_mesh(MeshConfig(data=8, model=2))
    with pytest.raises(ValueError, match="only one mesh axis may be -1, found data and fsdp"):
        MeshConfig(fsdp=-1)


class Chip(SimpleNamespace):
    """A chip of a 4x4 slice of v5e, as much of it as a mesh asks for."""

    def __hash__(self):
        return hash(self.id)


def chips(*counts):
    """The first chips of one slice after the other, so many of each."""
    return [
        Chip(
            id=16 * index + chip,
            platform="tpu",
            device_kind="TPU v5 lite",
            coords=(chip % 4, chip // 4, 0),
            core_on_chip=0,
            slice_index=index,
            process_index=4 * index + chip // 4,
        )
        for index, count in enumerate(counts)
        for chip in range(count)
    ]


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (32, 1, 1)),
        (MeshConfig(fsdp=8), (4, 8, 1)),
        # As many as a slice has: one configuration for any number of slices.
        (MeshConfig(fsdp=64), (2, 16, 1)),
        (MeshConfig(fsdp=64, model=4), (2, 4, 4)),
        (MeshConfig(data=2, fsdp=-1), (2, 16, 1)),
    ],
)
def test_data_alone_crosses_from_one_slice_to_the_other(config, shape):
    mesh = sharding.make_mesh(config, devices=chips(16, 16))
    assert mesh.devices.shape == shape
    assert len({chip.id for chip in mesh.devices.ravel()}) == 32
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    half = shape[0] // 2
    assert not slices[:half].any()
    assert slices[half:].all()


def test_a_mesh_may_take_a_part_of_each_slice_or_one_of_them():
    assert sharding.make_mesh(MeshConfig(data=4, fsdp=4), devices=chips(16, 16)).devices.shape == (4, 4, 1)
    assert sharding.make_mesh(MeshConfig(data=2, fsdp=8), devices=chips(8, 8)).devices.shape == (2, 8, 1)


def test_slices_that_a_mesh_cannot_divide_are_refused():
    with pytest.raises(InputError, match=r"mesh.data = 1 is not a multiple of the 2 TPU slices.* the 16 chips of a"):
        sharding.make_mesh(MeshConfig(data=1, fsdp=32), devices=chips(16, 16))
    with pytest.raises(InputError, match=r"the mesh of 24 chips has 16 in slice 0, 8 in slice 1; every slice must"):
        sharding.make_mesh(MeshConfig(data=24), devices=chips(16, 16))


def test_the_tables_split_matrices_over_fsdp_and_model_moments_too():
    mesh = sharding.make_mesh(MeshConfig(fsdp=2, model=2))
    parameters = nnx.to_pure_dict(nnx.state(abstract_dual_encoder(CONFIG), nnx.Param))
    found = specs(parameters, mesh)
    layer = "tower/layers/0/"
    by_column, by_row, split = PartitionSpec("fsdp", "model"), PartitionSpec("model", "fsdp"), PartitionSpec("model")
    expected = {
        "tower/token_embedding/embedding": by_row,
        **{layer + f"attention/{name}/kernel": by_column for name in ("query", "key", "value")},
        **{layer + f"attention/{name}/bias": split for name in ("query", "key", "value")},
        layer + "attention/output/kernel": by_row,
        layer + "feed_forward/up/kernel": by_column,
        layer + "feed_forward/up/bias": split,
        layer + "feed_forward/down/kernel": by_row,
    }
    assert {name: spec for name, spec in found.items() if any(spec)} == expected
    moments = specs(jax.eval_shape(optax.adam(1e-3).init, parameters), mesh)
    assert sum(any(spec) for spec in moments.values()) == 2 * len(expected)


def test_pairs_of_dense_modules_are_split_by_columns_and_then_by_rows():
    mesh = sharding.make_mesh(MeshConfig(fsdp=2, model=2))
    shapes = [(4, 6), (6, 8), (8, 10)]
    dense = {i: {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1])} for i, shape in enumerate(shapes)}
    found = specs({"tower": {"dense": dense}}, mesh)
    by_column, by_row, split = PartitionSpec("fsdp", "model"), PartitionSpec("model", "fsdp"), PartitionSpec("model")
    assert [found[f"tower/dense/{i}/kernel"] for i in range(3)] == [by_column, by_row, by_column]
    assert [found[f"tower/dense/{i}/bias"] for i in range(3)] == [split, PartitionSpec(), split]


def test_what_the_axis_does_not_divide_is_replicated():
    mesh = sharding.make_mesh(MeshConfig(model=8))
    tree = {"token_embedding": {"embedding": jnp.zeros((12, 4))}, "up": jnp.zeros(8)}
    assert not any(any(spec) for spec in specs(tree, mesh).values())


def stand_in_mesh(processes, *, data, model):
    """As much of a mesh as is asked for, whose devices belong to these processes."""
    devices = np.array([SimpleNamespace(process_index=index) for index in processes]).reshape(data, 1, model)
    return SimpleNamespace(devices=devices, shape={"data": data, "fsdp": 1, "model": model}, size=devices.size)


@pytest.mark.parametrize(
    ("processes", "data", "model"),
    [([0, 0, 1, 1], 4, 1), ([0, 1, 0, 1], 4, 1), ([0, 0, 1, 1], 2, 2), ([0, 0, 1, 1], 1, 4), ([0, 1, 0, 1], 2, 2)],
)
def test_groups_that_can_be_dealt_out_to_two_processes(monkeypatch, processes, data, model):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    sharding.check_processes(stand_in_mesh(processes, data=data, model=model))


def test_groups_that_cannot_be_dealt_out_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="the mesh of 2 devices has none of process 1 of 2"):
        sharding.check_processes(stand_in_mesh([0, 0], data=2, model=1))
    with pytest.raises(InputError, match="unevenly to 2 processes"):
        sharding.check_processes(stand_in_mesh([0, 0, 0, 1], data=4, model=1))
    # The second group lies on devices of both.
    with pytest.raises(InputError, match=r"unevenly to 2 processes: \[\(0, 1\), \(1, 2\)\]"):
        sharding.check_processes(stand_in_mesh([0, 0, 0, 1, 1, 1], data=3, model=2))
