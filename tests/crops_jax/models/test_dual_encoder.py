import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.models.dual_encoder import create_dual_encoder, from_parameters
from tests.model_folders import random_model, small_config, write_bert

TOKENS = np.asarray([[2, 5, 7, 3, -1, -1], [2, 9, 9, 8, 4, 3], [-1] * 6], np.int32)


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def leaves(model):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters(model))}


@functools.partial(jax.jit, static_argnames=("graph", "tower"))
def _vectors(graph, state, tokens, key, *, tower):
    model = nnx.merge(graph, state)
    return getattr(model, f"encode_{tower}")(tokens, dropout_key=key)


def vectors_of(model, tower, *, key=None):
    return _vectors(*nnx.split(model), TOKENS, key, tower=tower)


@pytest.mark.parametrize(
    ("pooling", "compute_dtype"), [("mean", "float32"), ("first", "float32"), ("last", "bfloat16")]
)
def test_unit_vectors_and_zeros_for_padding(pooling, compute_dtype):
    model = random_model(small_config(layers=1, pooling=pooling, compute_dtype=compute_dtype))
    for tower in ("queries", "documents"):
        vectors = vectors_of(model, tower)
        assert vectors.dtype == jnp.float32
        assert vectors.shape == (3, 30)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-5)


def test_shared_towers_are_one_set_of_weights():
    model = random_model(small_config(layers=1))
    assert set(parameters(model)) == {"tower", "log_inverse_temperature"}
    np.testing.assert_array_equal(vectors_of(model, "queries"), vectors_of(model, "documents"))


def test_separate_towers_differ():
    model = random_model(small_config(shared_towers=False, layers=1))
    assert set(parameters(model)) == {"query_tower", "document_tower", "log_inverse_temperature"}
    assert np.abs(vectors_of(model, "queries") - vectors_of(model, "documents"))[:2].max() > 0.01


def test_the_temperature_starts_where_the_configuration_says():
    config = small_config().replace(loss={"initial_temperature": 0.2})
    parameter = create_dual_encoder(config, seed=0).log_inverse_temperature
    assert parameter.shape == ()
    assert parameter.dtype == jnp.float32
    assert math.exp(-float(parameter[...])) == pytest.approx(0.2)


def test_the_seed_decides_the_weights():
    one, again, other = (leaves(create_dual_encoder(small_config(), seed=seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(one[path], again[path]) for path in one)
    assert not all(np.array_equal(one[path], other[path]) for path in one)


def test_from_parameters_gives_the_model_back():
    model = random_model(small_config())
    named = parameters(model)
    named["tower"]["layers"] = {str(layer): values for layer, values in named["tower"]["layers"].items()}
    again = from_parameters(small_config(), named)
    np.testing.assert_array_equal(vectors_of(again, "queries"), vectors_of(model, "queries"))


def test_from_parameters_names_what_does_not_fit():
    named = parameters(random_model(small_config()))
    with pytest.raises(ValueError, match="tower/layers/2/attention/key/bias is missing"):
        from_parameters(small_config(layers=3), named)
    with pytest.raises(ValueError, match="tower/layers/1/attention/key/bias is unknown"):
        from_parameters(small_config(layers=1), named)
    with pytest.raises(ValueError, match=r"position_embedding/embedding has shape \(77, 30\), expected \(78, 30\)"):
        from_parameters(small_config(max_positions=78), named)


def test_two_towers_from_one_folder_share_no_buffer(tmp_path):
    config = small_config(weights=str(write_bert(tmp_path / "bert")), shared_towers=False)
    model = create_dual_encoder(config, seed=0)
    np.testing.assert_array_equal(vectors_of(model, "queries"), vectors_of(model, "documents"))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves(model).values()]
    assert len(set(pointers)) == len(pointers)


def test_dropout_reaches_both_towers():
    model = random_model(small_config(dropout=0.5, shared_towers=False, layers=1))
    for tower in ("queries", "documents"):
        assert (
            np.abs(vectors_of(model, tower, key=jax.random.key(0, impl="rbg")) - vectors_of(model, tower)).max() > 0.01
        )
