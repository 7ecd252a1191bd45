import jax
import numpy as np
from flax import nnx
from scipy.special import erf

from tests.attention_oracle import by_head, rotary_attention
from tests.model_folders import assert_packed_texts_are_the_texts_alone, random_model, small_config

SIZES = {"width": 36, "layers": 4, "local_window": 3, "rotary_base": 500.0, "local_rotary_base": 20.0}
SIZES |= {"family": "modernbert", "layer_norm_epsilon": 1e-5}


def oracle(parameters, ids, *, heads, window, bases):
    """The paper in float64, one text, token by token. bases: of layers that see whole texts, and of the others."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)

    def norm(x, n):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * n["scale"]

    states = norm(p["token_embedding"]["embedding"][ids], p["embedding_norm"])
    for i in range(len(p["layers"])):
        layer, whole = p["layers"][i], i % 3 == 0
        base = bases[0 if whole else 1]
        normal = norm(states, layer["attention_norm"]) if i else states
        query, key, value = (
            by_head(normal @ layer["attention"][name]["kernel"], heads) for name in ("query", "key", "value")
        )
        mixed = rotary_attention(query, key, value, base=base, window=None if whole else window)
        states = states + mixed @ layer["attention"]["output"]["kernel"]
        normal, feed = norm(states, layer["feed_forward_norm"]), layer["feed_forward"]
        gate = normal @ feed["gate"]["kernel"]
        gate = gate * 0.5 * (1 + erf(gate / np.sqrt(2)))
        states = states + (gate * (normal @ feed["up"]["kernel"])) @ feed["down"]["kernel"]
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
        expected = oracle(parameters, ids, heads=3, window=3, bases=(500.0, 20.0))
        np.testing.assert_allclose(found[: len(ids)], expected, atol=5e-5)


def test_a_packed_text_is_the_text_alone():
    model = random_model(small_config(**SIZES | {"layers": 2}))
    assert_packed_texts_are_the_texts_alone(model)


def test_parameters_are_those_that_the_docstring_lists():
    model = random_model(small_config(**SIZES | {"layers": 2})).tower
    paths = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    layer = {f"attention/{name}/kernel" for name in ("query", "key", "value", "output")} | {"feed_forward_norm/scale"}
    layer |= {f"feed_forward/{name}/kernel" for name in ("gate", "up", "down")}
    expected = {
        "token_embedding/embedding",
        "embedding_norm/scale",
        "final_norm/scale",
        "layers/1/attention_norm/scale",
    }
    assert paths == expected | {f"layers/{i}/{name}" for i in range(2) for name in layer}
