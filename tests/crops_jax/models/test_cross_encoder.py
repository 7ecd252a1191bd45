"""The cross-encoder: its definition, padding, token types, and what it takes from a folder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from crops_jax.errors import InputError
from crops_jax.models.cross_encoder import abstract_cross_encoder, from_parameters
from crops_jax.training.cross_encoder import initial_parameters
from tests.model_folders import ONE_DEVICE, small_config, write_bert

CONFIG = small_config(layers=1).encoder


def random_encoder(config=CONFIG, *, seed=0):
    """One whose logits differ between texts, biases and norms included."""
    generator = np.random.default_rng(seed)
    draw = lambda leaf: generator.normal(0, 0.25, leaf.shape).astype(np.float32)  # noqa: E731
    return from_parameters(config, jax.tree.map(draw, nnx.to_pure_dict(nnx.state(abstract_cross_encoder(config)))))


@functools.partial(jax.jit, static_argnames="graph")
def _logits(graph, state, tokens, types, key):
    return nnx.merge(graph, state)(tokens, types, dropout_key=key)


def logits_of(model, tokens, types, *, key=None):
    return np.asarray(_logits(*nnx.split(model), jnp.asarray(tokens), jnp.asarray(types), key))


def rows(width=13, *, seed=0):
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 60, (3, width)).astype(np.int32)
    types = (np.arange(width) >= 5).astype(np.int32)[None].repeat(3, axis=0)
    for row, length in enumerate((width, 9, 6)):
        tokens[row, length:], types[row, length:] = -1, 0
    return tokens, types


def test_the_logit_is_the_head_of_the_pooled_first_state():
    model = random_encoder()
    tokens, types = rows()
    graph, state = nnx.split(model.tower)
    tower = jax.jit(lambda tokens, types: nnx.merge(graph, state)(tokens, token_types=types))
    states = np.asarray(tower(tokens, types), np.float64)[:, 0]
    parameters = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), nnx.to_pure_dict(nnx.state(model)))
    pooled = np.tanh(states @ parameters["pooler"]["kernel"] + parameters["pooler"]["bias"])
    expected = (pooled @ parameters["head"]["kernel"] + parameters["head"]["bias"])[:, 0]
    found = logits_of(model, tokens, types)
    assert found.shape == (3,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.01


def test_padding_changes_no_logit():
    model = random_encoder()
    tokens, types = rows()
    wide = [np.pad(part, ((0, 0), (0, 8)), constant_values=fill) for part, fill in ((tokens, -1), (types, 1))]
    np.testing.assert_allclose(logits_of(model, *wide), logits_of(model, tokens, types), atol=1e-6)


def test_the_second_text_has_a_type_of_its_own_where_the_tower_has_two():
    tokens, types = rows()
    for count, differs in ((2, True), (1, False)):
        model = random_encoder(small_config(layers=1, type_vocabulary_size=count).encoder)
        one, other = logits_of(model, tokens, types), logits_of(model, tokens, np.zeros_like(types))
        assert (np.abs(one - other).max() > 1e-4) == differs


def test_dropout_follows_its_key():
    model = random_encoder(small_config(layers=1, dropout=0.5).encoder)
    pairs = rows()
    one, again, other = (logits_of(model, *pairs, key=jax.random.key(seed, impl="rbg")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


def folder_with(tmp_path, **tensors):
    folder = write_bert(tmp_path / "bert", layers=1)
    file = folder / "model.safetensors"
    kept = {name: array for name, array in load_file(file).items() if not name.startswith("pooler")}
    save_file(kept | tensors, file)
    return small_config(layers=1, weights=str(folder)).encoder


@pytest.mark.parametrize("names", [("pooler.dense", "classifier"), ("classifier.dense", "classifier.out_proj")])
def test_pooler_and_head_of_a_folder_are_taken(tmp_path, names):
    generator = np.random.default_rng(1)
    draw = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    tensors = {f"{names[0]}.weight": draw(30, 30), f"{names[0]}.bias": draw(30)}
    tensors |= {f"{names[1]}.weight": draw(1, 30), f"{names[1]}.bias": draw(1)}
    found = initial_parameters(folder_with(tmp_path, **tensors), seed=0, mesh=ONE_DEVICE)
    for layer, name in (("pooler", names[0]), ("head", names[1])):
        np.testing.assert_array_equal(found[layer]["kernel"], tensors[f"{name}.weight"].T)
        np.testing.assert_array_equal(found[layer]["bias"], tensors[f"{name}.bias"])


def test_what_a_folder_lacks_is_random_by_seed(tmp_path):
    zeros = {"pooler.dense.weight": np.zeros((30, 30), np.float32), "pooler.dense.bias": np.zeros(30, np.float32)}
    three = {"classifier.weight": np.ones((3, 30), np.float32), "classifier.bias": np.ones(3, np.float32)}
    config = folder_with(tmp_path, **zeros, **three)
    one, again, other = (initial_parameters(config, seed=seed, mesh=ONE_DEVICE) for seed in (0, 0, 1))
    for name in ("pooler", "head"):
        kernels = [np.asarray(found[name]["kernel"]) for found in (one, again, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert kernels[0].any()
        assert (kernels[0] != kernels[2]).any()
    scales = [found["tower"]["embedding_norm"]["scale"] for found in (one, other)]
    np.testing.assert_array_equal(*scales)


def test_weights_that_do_not_belong_to_their_configuration_are_refused(tmp_path):
    config = folder_with(tmp_path)
    wrong = small_config(layers=1, weights=config.weights, vocabulary_size=99).encoder
    with pytest.raises(InputError, match=r"do not belong to the config\.json"):
        initial_parameters(wrong, seed=0, mesh=ONE_DEVICE)
