import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from crops_jax.models.attention.relative_bias import distance_buckets
from tests.attention_oracle import by_head, rotary_attention
from tests.model_folders import assert_packed_texts_are_the_texts_alone, random_model, small_config


def tower(**encoder):
    return random_model(small_config(**encoder)).tower


@functools.partial(jax.jit, static_argnames="graph")
def _states(graph, state, rows, key):
    return nnx.merge(graph, state)(rows, dropout_key=key)


def states_of(model, rows, *, key=None):
    return _states(*nnx.split(model), rows, key)


def tokens(lengths, width, *, seed=0, fill=-1):
    generator = np.random.default_rng(seed)
    rows = np.full((len(lengths), width), fill, np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = generator.integers(0, 60, length)
    return rows


def oracle(parameters, ids, *, heads, epsilon, offset=0, bucket=None):
    """Devlin et al. in float64, one text without padding. bucket: that of a distance, for the biases of MPNet."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)

    def norm(x, n):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * n["scale"] + n["bias"]

    def linear(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    states = p["token_embedding"]["embedding"][ids]
    if bucket is None:
        states, bias = states + p["token_type_embedding"]["embedding"][0], 0.0
    else:
        buckets = [[bucket(key - query) for key in range(len(ids))] for query in range(len(ids))]
        bias = p["relative_bias"]["embedding"][np.array(buckets)].transpose(2, 0, 1)
    states = norm(states + p["position_embedding"]["embedding"][offset : offset + len(ids)], p["embedding_norm"])
    for i in range(len(p["layers"])):
        layer = p["layers"][i]
        query, key, value = (
            np.stack(np.split(linear(states, layer["attention"][name]), heads, axis=-1))
            for name in ("query", "key", "value")
        )
        logits = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]) + bias
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.concatenate(list(weights @ value), axis=-1)
        states = norm(states + linear(mixed, layer["attention"]["output"]), layer["attention_norm"])
        hidden = linear(states, layer["feed_forward"]["up"])
        hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
        states = norm(states + linear(hidden, layer["feed_forward"]["down"]), layer["feed_forward_norm"])
    return states


@pytest.mark.parametrize("offset", [0, 2])
def test_states_are_those_of_the_definition(offset):
    model = tower(position_offset=offset, layer_norm_epsilon=1e-5)
    rows = tokens([1, 7, 13], 13)
    states = states_of(model, rows)
    for row, found in zip(rows, states, strict=True):
        ids = row[row >= 0]
        expected = oracle(nnx.to_pure_dict(nnx.state(model)), ids, heads=3, epsilon=1e-5, offset=offset)
        np.testing.assert_allclose(found[: len(ids)], expected, atol=2e-5)


def bucket_of(distance):
    """The bucket of a distance among 8 of MPNet's, by hand: 4 a side, of 0, 1, 2 to 15, and 16 and more."""
    size = abs(distance)
    place = size if size < 2 else 2 if size < 16 else 3
    return place + (4 if distance > 0 else 0)


def test_states_of_mpnet_are_those_of_the_definition():
    model = tower(family="mpnet", position_offset=2, layer_norm_epsilon=1e-5, relative_buckets=8)
    rows = tokens([1, 7, 20], 20)
    states = states_of(model, rows)
    for row, found in zip(rows, states, strict=True):
        ids = row[row >= 0]
        parameters = nnx.to_pure_dict(nnx.state(model))
        expected = oracle(parameters, ids, heads=3, epsilon=1e-5, offset=2, bucket=bucket_of)
        np.testing.assert_allclose(found[: len(ids)], expected, atol=2e-5)


def test_a_packed_text_of_mpnet_is_the_text_alone():
    model = random_model(small_config(family="mpnet", layers=1))
    assert_packed_texts_are_the_texts_alone(model)


def test_buckets_of_distances():
    distances = np.arange(-200, 201)
    buckets = distance_buckets(distances, buckets=8)
    assert buckets.tolist() == [bucket_of(distance) for distance in distances.tolist()]
    # 32 buckets: 8 distances of their own on each side, then ranges that end at 11, 15, 22, 31, 45, 63, 90.
    ends = [11, 15, 22, 31, 45, 63, 90]
    expected = [size if size < 8 else 8 + sum(size > end for end in ends) for size in range(201)]
    assert distance_buckets(-np.arange(201), buckets=32).tolist() == expected
    assert distance_buckets(np.arange(1, 201), buckets=32).tolist() == [16 + bucket for bucket in expected[1:]]


def test_padding_changes_no_state():
    model = tower()
    short = states_of(model, tokens([5, 3], 5))
    long = states_of(model, tokens([5, 3], 31))
    np.testing.assert_allclose(short[0], long[0, :5], atol=1e-5)
    np.testing.assert_allclose(short[1, :3], long[1, :3], atol=1e-5)


def test_a_row_of_padding_has_finite_states_and_gradients():
    graph, state = nnx.split(tower(layers=1))
    rows = jnp.asarray(tokens([4, 0], 6))

    def total(state):
        return jnp.sum(nnx.merge(graph, state)(rows) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(total))(state)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_bfloat16_computes_in_bfloat16_from_float32_weights():
    rows = tokens([9, 4], 9)
    exact, rough = tower(), tower(compute_dtype="bfloat16")
    found = states_of(rough, rows)
    assert found.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rough))} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found[0].astype(jnp.float32), states_of(exact, rows)[0], atol=0.15)


def test_dropout_needs_a_key_and_follows_it():
    rows = tokens([9, 4], 9)
    model, plain = tower(dropout=0.5, layers=1), tower(layers=1)
    expected = states_of(model, rows)
    np.testing.assert_array_equal(states_of(plain, rows, key=jax.random.key(0, impl="rbg")), expected)
    one, again, other = (states_of(model, rows, key=jax.random.key(seed, impl="rbg")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    assert np.abs(one - expected).max() > 0.1


def test_parameters_are_those_that_the_docstring_lists():
    shapes = {
        "/".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(tower(layers=1), nnx.Param))
    }
    linear = {f"layers/0/attention/{name}": (30, 30) for name in ("query", "key", "value", "output")}
    linear |= {"layers/0/feed_forward/up": (30, 52), "layers/0/feed_forward/down": (52, 30)}
    norms = ("embedding_norm", "layers/0/attention_norm", "layers/0/feed_forward_norm")
    expected = {
        "token_embedding/embedding": (small_config().encoder.vocabulary_size, 30),
        "position_embedding/embedding": (77, 30),
        "token_type_embedding/embedding": (2, 30),
        **{f"{name}/{leaf}": (30,) for name in norms for leaf in ("scale", "bias")},
        **{f"{name}/kernel": shape for name, shape in linear.items()},
        **{f"{name}/bias": shape[1:] for name, shape in linear.items()},
    }
    assert shapes == expected
    # Nothing but parameters, so that a split leaves one tree.
    assert len(jax.tree.leaves(nnx.state(tower(layers=1, dropout=0.1)))) == len(expected)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="at most 75 tokens"):
        tower(position_offset=2)(jnp.zeros((1, 76), jnp.int32))


NOMIC = {"family": "nomic_bert", "width": 36, "rotary_base": 50.0, "layer_norm_epsilon": 1e-5}


def nomic_oracle(parameters, ids):
    """NomicBERT in float64, one text."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)

    def norm(x, n):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * n["scale"] + n["bias"]

    states = p["token_embedding"]["embedding"][ids] + p["token_type_embedding"]["embedding"][0]
    states = norm(states, p["embedding_norm"])
    for i in range(len(p["layers"])):
        layer = p["layers"][i]
        attention, feed = layer["attention"], layer["feed_forward"]
        query, key, value = (by_head(states @ attention[name]["kernel"], 3) for name in ("query", "key", "value"))
        mixed = rotary_attention(query, key, value, base=50.0)
        states = norm(states + mixed @ attention["output"]["kernel"], layer["attention_norm"])
        gate = states @ feed["gate"]["kernel"]
        hidden = gate / (1 + np.exp(-gate)) * (states @ feed["up"]["kernel"])
        states = norm(states + hidden @ feed["down"]["kernel"], layer["feed_forward_norm"])
    return states


def test_states_of_nomic_bert_are_those_of_the_definition():
    model = tower(**NOMIC)
    rows = tokens([1, 7, 13], 13)
    for row, found in zip(rows, states_of(model, rows), strict=True):
        ids = row[row >= 0]
        expected = nomic_oracle(nnx.to_pure_dict(nnx.state(model)), ids)
        np.testing.assert_allclose(found[: len(ids)], expected, atol=2e-5)


def test_a_packed_text_of_nomic_bert_is_the_text_alone():
    assert_packed_texts_are_the_texts_alone(random_model(small_config(**NOMIC, layers=1)))
