import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from crops_jax import sharding
from crops_jax.config import MeshConfig
from crops_jax.errors import InputError
from crops_jax.models.dual_encoder import DualEncoder
from tests.tiny_run import CONFIG


def specs(tree, mesh):
    leaves = jax.tree_util.tree_leaves_with_path(sharding.tree_shardings(tree, mesh))
    return {sharding.path_name(path): place.spec for path, place in leaves}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1)),
        (MeshConfig(model=2), (4, 2)),
        (MeshConfig(data=2, model=-1), (2, 4)),
        (MeshConfig(data=1, model=1), (1, 1)),
        (MeshConfig(data=3, model=2), (3, 2)),
    ],
)
def test_mesh_shapes(config, shape):
    mesh = sharding.make_mesh(config)
    assert mesh.devices.shape == shape
    assert mesh.axis_names == ("data", "model")
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"mesh.model is 3, which does not divide the 8 devices"):
        sharding.make_mesh(MeshConfig(model=3))
    with pytest.raises(InputError, match="needs 16 devices and 8 are here"):
        sharding.make_mesh(MeshConfig(data=8, model=2))


def test_rules_split_matrices_over_the_model_axis_moments_too():
    mesh = sharding.make_mesh(MeshConfig(model=2))
    model = nnx.eval_shape(lambda: DualEncoder(CONFIG.encoder, initial_temperature=0.1, rngs=nnx.Rngs(0)))
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    found = specs(parameters, mesh)
    layer = "tower/layers/0/"
    by_column, by_row, split = PartitionSpec(None, "model"), PartitionSpec("model", None), PartitionSpec("model")
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


def test_what_the_axis_does_not_divide_is_replicated():
    mesh = sharding.make_mesh(MeshConfig(model=8))
    tree = {"token_embedding": {"embedding": jnp.zeros((12, 4))}, "up": jnp.zeros(8)}
    assert not any(any(spec) for spec in specs(tree, mesh).values())
