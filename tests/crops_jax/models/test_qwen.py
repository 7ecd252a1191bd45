import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.models.attention.rotary import rotated, rotations
from tests.model_folders import assert_packed_texts_are_the_texts_alone, random_model, small_config

SIZES = {"heads": 6, "key_value_heads": 2, "head_width": 8, "layer_norm_epsilon": 1e-6, "rotary_base": 1e4}
FAMILIES = ["qwen2", "qwen3", "mistral"]


def tower(family, **encoder):
    return random_model(small_config(family=family, pooling="last", **SIZES | encoder)).tower


def oracle(parameters, ids, *, heads, groups, width, base, epsilon):
    """The two papers in float64, one text, head by head and token by token."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)

    def norm(x, n):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * n["scale"]

    def linear(x, layer):
        return x @ layer["kernel"] + layer.get("bias", 0)

    def turned(vector, position):
        result = vector.copy()
        for i in range(width // 2):
            angle = position * base ** (-2 * i / width)
            a, b = vector[i], vector[i + width // 2]
            result[i] = a * np.cos(angle) - b * np.sin(angle)
            result[i + width // 2] = b * np.cos(angle) + a * np.sin(angle)
        return result

    states = p["token_embedding"]["embedding"][ids]
    for i in range(len(p["layers"])):
        layer = p["layers"][i]
        attention, normal = layer["attention"], norm(states, layer["attention_norm"])
        query, key, value = (linear(normal, attention[name]) for name in ("query", "key", "value"))
        mixed = np.zeros_like(query)
        for head in range(heads):
            mine = slice(head * width, (head + 1) * width)
            theirs = slice(head // (heads // groups) * width, (head // (heads // groups) + 1) * width)
            q, k = query[:, mine], key[:, theirs]
            if "query_norm" in attention:
                q, k = norm(q, attention["query_norm"]), norm(k, attention["key_norm"])
            q, k = (np.stack([turned(row, at) for at, row in enumerate(rows)]) for rows in (q, k))
            for at in range(len(ids)):
                logits = q[at] @ k[: at + 1].T / np.sqrt(width)
                weights = np.exp(logits - logits.max())
                mixed[at, mine] = weights / weights.sum() @ value[: at + 1, theirs]
        states = states + linear(mixed, attention["output"])
        normal, feed = norm(states, layer["feed_forward_norm"]), layer["feed_forward"]
        gate = linear(normal, feed["gate"])
        states = states + linear(gate / (1 + np.exp(-gate)) * linear(normal, feed["up"]), feed["down"])
    return norm(states, p["final_norm"])


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_the_definition(family):
    model = tower(family)
    generator = np.random.default_rng(0)
    rows = np.full((3, 11), -1, np.int32)
    for row, length in zip(rows, (1, 6, 11), strict=True):
        row[:length] = generator.integers(0, 60, length)
    states = jax.jit(model)(rows)
    for row, found in zip(rows, states, strict=True):
        ids = row[row >= 0]
        expected = oracle(nnx.to_pure_dict(nnx.state(model)), ids, heads=6, groups=2, width=8, base=1e4, epsilon=1e-6)
        np.testing.assert_allclose(found[: len(ids)], expected, atol=5e-5)


@pytest.mark.parametrize("family", [pytest.param("qwen2", marks=pytest.mark.slow), "qwen3"])
def test_a_packed_text_is_the_text_alone(family):
    model = random_model(small_config(family=family, pooling="last", layers=1, **SIZES))
    assert_packed_texts_are_the_texts_alone(model)


def test_families_have_their_own_parameters():
    paths = {
        family: {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(tower(family), nnx.Param))}
        for family in FAMILIES
    }
    attention = "layers/0/attention"
    assert paths["qwen2"] - paths["qwen3"] == {
        f"layers/{i}/attention/{name}/bias" for i in range(2) for name in ("query", "key", "value")
    }
    assert paths["qwen2"] - paths["mistral"] == paths["qwen2"] - paths["qwen3"]
    assert paths["mistral"] < paths["qwen2"]
    assert f"{attention}/query_norm/scale" in paths["qwen3"] - paths["qwen2"]
    shape = nnx.state(tower("qwen3"), nnx.Param)["layers"][0]["attention"]["key"]["kernel"].shape
    assert shape == (30, 16)


def test_rotation_depends_on_distances_only():
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 2, 8)), jnp.float32)

    def product(first, second):
        turned = [rotated(vectors, rotations(jnp.asarray([[at]]), width=8, base=100.0)) for at in (first, second)]
        return (turned[0][0, 0, 0] * turned[1][0, 0, 1]).sum()

    assert product(3, 7) == pytest.approx(float(product(13, 17)), rel=1e-4)
    assert product(3, 7) != pytest.approx(float(product(3, 8)), rel=1e-3)


@pytest.mark.slow
def test_remat_changes_no_gradient():
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 5)), jnp.int32)

    def gradient(remat):
        graph, state = nnx.split(tower("qwen2", remat=remat, layers=1))
        return jax.jit(jax.grad(lambda state: (nnx.merge(graph, state)(tokens) ** 3).sum()))(state)

    for one, other in zip(jax.tree.leaves(gradient(False)), jax.tree.leaves(gradient(True)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"key_value_heads": 4}, "heads must be a multiple of key_value_heads"),
        ({"head_width": 7}, "heads of even width"),
        ({"rotary_base": 0.0}, "rotary_base must be positive"),
        ({"family": "bert"}, "key_value_heads and head_width are those of Qwen, Mistral and Gemma"),
    ],
)
def test_sizes_that_no_tower_has_are_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        small_config(**{"family": "qwen2", **SIZES, **wrong})
