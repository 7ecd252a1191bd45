import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.models.dual_encoder import abstract_dual_encoder, from_parameters
from crops_jax.models.parameters import place_parameters
from crops_jax.text.packing import PackedTexts, assign_rows, lay_out
from crops_jax.training.dual_encoder import initial_parameters
from tests.model_folders import ONE_DEVICE, random_model, random_parameters, small_config, write_bert

TOKENS = np.asarray([[2, 5, 7, 3, -1, -1], [2, 9, 9, 8, 4, 3], [-1] * 6], np.int32)


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


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


def test_the_seed_decides_the_weights_and_the_mesh_where_they_lie():
    config = small_config(layers=1).replace(loss={"initial_temperature": 0.2})
    eight = sharding.make_mesh(MeshConfig(data=2, fsdp=2, model=2))
    one, again, other = (
        leaves(initial_parameters(config, seed=seed, mesh=mesh))
        for seed, mesh in ((0, ONE_DEVICE), (0, eight), (1, ONE_DEVICE))
    )
    assert all(np.array_equal(one[path], again[path]) for path in one)
    assert not all(np.array_equal(one[path], other[path]) for path in one)
    kernel = again["['tower']['layers'][0]['feed_forward']['up']['kernel']"]
    assert kernel.sharding.shard_shape(kernel.shape) == (15, 26)
    parameter = one["['log_inverse_temperature']"]
    assert (parameter.shape, parameter.dtype) == ((), jnp.float32)
    assert math.exp(-float(parameter)) == pytest.approx(0.2)


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
    found = initial_parameters(config, seed=0, mesh=ONE_DEVICE)
    model = from_parameters(config, found)
    np.testing.assert_array_equal(vectors_of(model, "queries"), vectors_of(model, "documents"))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((found, parameters(model)))]
    assert len(set(pointers)) == len(pointers)


def test_dropout_reaches_both_towers():
    model = random_model(small_config(dropout=0.5, shared_towers=False, layers=1))
    for tower in ("queries", "documents"):
        assert (
            np.abs(vectors_of(model, tower, key=jax.random.key(0, impl="rbg")) - vectors_of(model, tower)).max() > 0.01
        )


ROW = 16


def random_packings(count, *, seed=0):
    """Rows of 16 tokens with random texts in them, every token another one: tokens and segments."""
    random = np.random.default_rng(seed)
    segments = np.full((count, ROW), -1, np.int32)
    for row in segments:
        cuts = np.sort(random.choice(np.arange(1, ROW + 1), random.integers(1, 4), replace=False))
        row[: cuts[-1]] = np.searchsorted(cuts, np.arange(cuts[-1]), side="right")
    tokens = np.where(segments < 0, -1, np.arange(count * ROW, dtype=np.int32).reshape(count, ROW))
    return tokens, segments


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_texts_of_a_row_are_exactly_apart(pooling):
    """1,000 rows: new tokens in one text of a row change no bit of another text, of its vector or its gradient."""
    count = 1000
    tokens, segments = random_packings(count)
    config = small_config(layers=2, width=8, heads=2, vocabulary_size=2 * count * ROW, pooling=pooling)
    graph, state = nnx.split(random_model(config))
    weights = np.random.default_rng(1).normal(size=(count, 4, 8)).astype(np.float32)

    @jax.jit
    def vectors_and_gradient(state, tokens, weights):
        def total(state):
            vectors = nnx.merge(graph, state).encode_rows(tokens, segments, tower="query")
            return (vectors * weights).sum(), vectors

        gradient, vectors = jax.grad(total, has_aux=True)(state)
        return vectors, nnx.to_pure_dict(gradient)["tower"]["token_embedding"]["embedding"]

    chosen = np.random.default_rng(2).integers(0, segments.max(axis=1) + 1)
    changed = segments == chosen[:, None]
    others = np.arange(4)[None, :] != chosen[:, None]
    # The loss looks at the other texts only.
    weights *= others[:, :, None]
    before, gradient_before = vectors_and_gradient(state, tokens, weights)
    after, gradient_after = vectors_and_gradient(state, np.where(changed, tokens + count * ROW, tokens), weights)
    np.testing.assert_array_equal(np.asarray(before)[others], np.asarray(after)[others])
    assert (np.asarray(before)[~others] != np.asarray(after)[~others]).any(axis=1).all()
    # Every token is another row of the table, so its row of the gradient is the token's own.
    untouched = tokens[(segments >= 0) & ~changed]
    np.testing.assert_array_equal(gradient_before[untouched], gradient_after[untouched])
    assert np.abs(np.asarray(gradient_before)[untouched]).max() > 0
    assert not np.asarray(gradient_before)[tokens[changed]].any()


@pytest.mark.parametrize(
    ("pooling", "offset"),
    [("mean", 2), pytest.param("first", 0, marks=pytest.mark.slow), pytest.param("last", 0, marks=pytest.mark.slow)],
)
def test_a_packed_text_is_the_text_alone(pooling, offset):
    model = random_model(small_config(pooling=pooling, position_offset=offset))
    random = np.random.default_rng(0)
    texts = [random.integers(0, 50, length).astype(np.int32) for length in (7, 3, 12, 1, 5, 16, 2, 0)]
    rows = assign_rows([len(text) for text in texts], row_tokens=ROW)
    packed = PackedTexts(*(array[None] for array in lay_out(texts, rows, row_tokens=ROW, num_rows=rows.count + 1)))
    assert rows.count == 3
    vectors = model.encode_packed(packed, tower="document")[0]
    alone = np.full((len(texts), ROW), -1, np.int32)
    for row, text in zip(alone, texts, strict=True):
        row[: len(text)] = text
    np.testing.assert_allclose(vectors, model.encode_documents(alone), atol=1e-5)
    assert not np.asarray(vectors[-1]).any()


def test_padding_longer_than_any_text_harms_nothing():
    """A row of 16 tokens over a table of 5 positions: what lies beyond the table must not become NaN."""
    config = small_config(layers=1, max_positions=5, max_query_tokens=5, max_document_tokens=5)
    graph, state = nnx.split(random_model(config))
    texts = [np.arange(5, dtype=np.int32)]
    rows = assign_rows([5], row_tokens=ROW)
    packed = PackedTexts(*(array[None] for array in lay_out(texts, rows, row_tokens=ROW, num_rows=2)))

    def total(state):
        return nnx.merge(graph, state).encode_packed(packed, tower="query")[0, 0, 0]

    value, gradient = jax.jit(jax.value_and_grad(total))(state)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_micro_batches_have_the_gradient_of_the_whole_and_replay_their_dropout():
    tokens, segments = random_packings(8)
    tokens %= 50
    packed = PackedTexts(
        tokens.reshape(2, 4, ROW), segments.reshape(2, 4, ROW), np.asarray([[0, 1, 9, -1], [0, 5, 12, 13]], np.int32)
    )
    graph, state = nnx.split(random_model(small_config(layers=1, dropout=0.3)))
    keys = jax.random.split(jax.random.key(3, impl="rbg"), 2)
    weights = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)

    def plain(model, texts):
        """The two halves of each group, encoded with the keys that the parts get, then chosen as from one."""
        halves = [
            model.encode_rows(
                tokens.reshape(2, 2, 2, ROW)[:, part].reshape(4, ROW),
                segments.reshape(2, 2, 2, ROW)[:, part].reshape(4, ROW),
                tower="query",
                dropout_key=keys[part],
            ).reshape(2, -1, 30)
            for part in range(2)
        ]
        chosen = jnp.take_along_axis(jnp.concatenate(halves, axis=1), jnp.maximum(texts.places, 0)[:, :, None], axis=1)
        return jnp.where((texts.places >= 0)[:, :, None], chosen, 0)

    def micro(model, texts):
        key = jax.random.key(3, impl="rbg")
        return model.encode_packed(texts, tower="query", micro_batches=2, dropout_key=key)

    def value_and_gradient(encode):
        def total(state):
            vectors = encode(nnx.merge(graph, state), packed)
            # Not linear: the gradient needs the vectors of all parts at once.
            return jnp.sum(weights * jnp.einsum("gtd,gud->gtu", vectors, vectors) ** 2)

        return jax.jit(jax.value_and_grad(total))(state)

    (value, gradient), (expected, expected_gradient) = (value_and_gradient(encode) for encode in (micro, plain))
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    leaves_of = [jax.tree.leaves(one) for one in (gradient, expected_gradient)]
    largest = max(np.abs(leaf).max() for leaf in leaves_of[1])
    assert max(np.abs(leaf - other).max() for leaf, other in zip(*leaves_of, strict=True)) <= 1e-5 * largest


@pytest.mark.slow
def test_a_mesh_gives_a_tower_with_dense_modules_the_gradients_of_one_device():
    dense = {"dense_widths": (24, 16), "dense_biases": (True, False), "dense_activations": ("identity", "identity")}
    tower = {"family": "gemma3", "layers": 1, "width": 16, "heads": 2, "key_value_heads": 2, "feed_forward_width": 32}
    config = small_config(**tower, **dense, vocabulary_size=64, local_window=2)
    drawn, abstract = random_parameters(config), abstract_dual_encoder(config)
    random = np.random.default_rng(0)
    tokens = random.integers(0, 60, (8, 16)).astype(np.int32)
    segments = np.repeat(np.array([[0] * 5 + [1] * 6 + [2] * 4 + [-1]], np.int32), 8, axis=0)
    factors = random.normal(size=(8, 16, 16)).astype(np.float32)

    def total(state, tokens, segments):
        vectors = nnx.merge(nnx.graphdef(abstract), state).encode_rows(tokens, segments, tower="document")
        return (vectors * factors[:, : vectors.shape[1]]).sum()

    found = []
    for mesh_config in (MeshConfig(data=1), MeshConfig(data=2, fsdp=2, model=2)):
        mesh = sharding.make_mesh(mesh_config)
        _, state = nnx.split(abstract)
        nnx.replace_by_pure_dict(state, place_parameters(abstract, drawn, mesh))
        rows = [jax.device_put(array, sharding.batch_sharding(mesh)) for array in (tokens, segments)]
        with sharding.traced_over(mesh):
            found.append(jax.device_get(nnx.to_pure_dict(jax.jit(jax.grad(total))(state, *rows))))
    one, other = (jax.tree.leaves(gradient) for gradient in found)
    largest = max(np.abs(leaf).max() for leaf in one)
    assert largest > 1
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) <= 1e-5 * largest
