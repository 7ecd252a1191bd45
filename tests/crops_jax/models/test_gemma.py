import jax
import numpy as np
import pytest
from flax import nnx

from tests.attention_oracle import by_head, rotary_attention
from tests.model_folders import assert_packed_texts_are_the_texts_alone, random_model, small_config

SIZES = {"family": "gemma3", "layers": 4, "heads": 6, "key_value_heads": 2, "head_width": 8, "query_scalar": 5}
SIZES |= {"global_every": 3, "local_window": 3, "rotary_base": 500.0, "local_rotary_base": 20.0}
SIZES |= {"layer_norm_epsilon": 1e-6}


def oracle(parameters, ids):
    """Gemma 3 with bidirectional attention in float64, one text."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)

    def norm(x, n):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + n["scale"])

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    table = p["token_embedding"]["embedding"]
    states = table[ids] * np.sqrt(table.shape[1])
    for i in range(len(p["layers"])):
        layer, whole = p["layers"][i], i % 3 == 2
        attention, feed = layer["attention"], layer["feed_forward"]
        normal = norm(states, layer["attention_norm"])
        query, key, value = (
            by_head(normal @ attention[name]["kernel"], heads)
            for name, heads in (("query", 6), ("key", 2), ("value", 2))
        )
        mixed = rotary_attention(
            norm(query, attention["query_norm"]),
            norm(key, attention["key_norm"]),
            value,
            base=500.0 if whole else 20.0,
            window=None if whole else 3,
            divisor=np.sqrt(5),
        )
        states = states + norm(mixed @ attention["output"]["kernel"], layer["attention_output_norm"])
        normal = norm(states, layer["feed_forward_norm"])
        hidden = gelu(normal @ feed["gate"]["kernel"]) * (normal @ feed["up"]["kernel"])
        states = states + norm(hidden @ feed["down"]["kernel"], layer["feed_forward_output_norm"])
    return norm(states, p["final_norm"])


def test_states_are_those_of_the_definition():
    model = random_model(small_config(**SIZES)).tower
    generator = np.random.default_rng(0)
    rows = np.full((3, 12), -1, np.int32)
    for row, length in zip(rows, (1, 6, 12), strict=True):
        row[:length] = generator.integers(0, 60, length)
    states = jax.jit(model)(rows)
    parameters = nnx.to_pure_dict(nnx.state(model))
    for row, found in zip(rows, states, strict=True):
        ids = row[row >= 0]
        np.testing.assert_allclose(found[: len(ids)], oracle(parameters, ids), atol=5e-5)


def test_a_packed_text_is_the_text_alone():
    dense = {"dense_widths": (11, 7), "dense_biases": (True, False), "dense_activations": ("tanh", "identity")}
    assert_packed_texts_are_the_texts_alone(
        random_model(small_config(**SIZES | {"layers": 2, "global_every": 2} | dense))
    )


def test_parameters_are_those_that_the_docstring_lists():
    model = random_model(small_config(**SIZES | {"layers": 2})).tower
    paths = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    layer = {f"attention/{name}/kernel" for name in ("query", "key", "value", "output")}
    layer |= {f"attention/{name}/scale" for name in ("query_norm", "key_norm")}
    layer |= {f"{block}_{name}/scale" for block in ("attention", "feed_forward") for name in ("norm", "output_norm")}
    layer |= {f"feed_forward/{name}/kernel" for name in ("gate", "up", "down")}
    expected = {"token_embedding/embedding", "final_norm/scale"}
    assert paths == expected | {f"layers/{i}/{name}" for i in range(2) for name in layer}


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"key_value_heads": 4}, "heads must be a multiple of key_value_heads"),
        ({"head_width": 7}, "heads of even width"),
        ({"query_scalar": -1}, "query_scalar must not be negative"),
        ({"attention": "flash"}, "attention 'flash' cannot compute that of gemma3"),
        ({"dense_widths": (3,)}, "must name equally many Dense modules, found 1, 0, 0"),
        (
            {"dense_widths": (3,), "dense_biases": (True,), "dense_activations": ("tanh",), "query_codes": 2},
            "query_codes need the states of tokens",
        ),
    ],
)
def test_sizes_that_no_tower_has_are_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        small_config(**SIZES | wrong)
