import functools
import itertools
import struct

import jax
import numpy as np
import pytest
from flax import nnx

from crops_jax.config import EncoderConfig, MeshConfig
from crops_jax.devices import sharding
from crops_jax.devices.hashing import murmur3
from crops_jax.models.hashed import bucket, identities
from crops_jax.text.packing import assign_rows, lay_out
from crops_jax.training.step import device_batch
from tests.crops_jax.models.test_dual_encoder import random_packings
from tests.crops_jax.training.test_step import PLAIN, batch_of, bert, first_moments, start
from tests.model_folders import random_model, random_parameters, small_config

SIZES = {"family": "hashed", "feature_width": 8, "hash_buckets": 37, "layers": 2, "feed_forward_width": 20}


def reference_hash(content: bytes, seed: int) -> int:
    """MurmurHash3_x86_32 as its author wrote it, for content of whole words."""
    most = 2**32 - 1

    def rotated(word, bits):
        return (word << bits | word >> (32 - bits)) & most

    mixed = seed
    for (word,) in struct.iter_unpack("<I", content):
        word = rotated(word * 0xCC9E2D51 & most, 15) * 0x1B873593 & most
        mixed = (rotated(mixed ^ word, 13) * 5 + 0xE6546B64) & most
    return reference_finaliser(mixed ^ len(content))


def reference_finaliser(mixed: int) -> int:
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & (2**32 - 1)
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & (2**32 - 1)
    return mixed ^ mixed >> 16


def reference_rows(feature: str, tokens, config: EncoderConfig) -> list[int]:
    """The rows of a feature's table that a text looks up."""
    if feature == "text":
        hashes = [reference_hash(struct.pack("<II", token, place), 2) for place, token in enumerate(tokens)]
        return [reference_finaliser(sum(hashes) % 2**32) % config.hash_buckets]
    if feature == "bigrams":
        pairs = itertools.pairwise(tokens)
        return [reference_hash(struct.pack("<II", *pair), 1) % config.hash_buckets for pair in pairs]
    if config.hash_buckets >= config.vocabulary_size:
        return list(tokens)
    return [reference_hash(struct.pack("<I", token), 0) % config.hash_buckets for token in tokens]


def reference_vector(tokens, parameters, config: EncoderConfig) -> np.ndarray:
    averages = []
    for feature in config.hashed_features:
        table = parameters["feature_tables"][feature]["embedding"].astype(np.float64)
        rows = reference_rows(feature, [int(token) for token in tokens], config)
        averages.append(table[rows].mean(axis=0) if rows else np.zeros(config.feature_width))
    states = np.concatenate(averages)
    for i in range(config.layers):
        layer = parameters["layers"][i]
        states = np.maximum(states @ layer["kernel"].astype(np.float64) + layer["bias"], 0)
    vector = states @ parameters["output"]["kernel"] + parameters["output"]["bias"]
    return vector / np.linalg.norm(vector)


@functools.partial(jax.jit, static_argnames="graph")
def encode_rows(graph, state, tokens, segments, key=None):
    return nnx.merge(graph, state).encode_rows(tokens, segments, tower="query", dropout_key=key)


def test_the_hash_is_murmur3():
    words = np.frombuffer(b"testHello, world", np.int32)
    assert [int(murmur3(words[:1], seed=0)[0]), int(murmur3(words[:1], seed=0x9747B28C)[0])] == [0xBA6BD213, 0x704B81DC]
    random = np.random.default_rng(0).integers(-(2**31), 2**31, (2, 50)).astype(np.int32)
    for seed in (0, 1, 2):
        found = np.asarray(murmur3(*random, seed=seed)).tolist()
        assert found == [reference_hash(pair.tobytes(), seed) for pair in np.ascontiguousarray(random.T)]


@pytest.mark.parametrize(
    "encoder",
    [{}, {"hash_buckets": 100, "hashed_features": ("text", "unigrams"), "layers": 1, "compute_dtype": "float32"}],
)
def test_vectors_are_those_of_the_definition_packed_or_alone_in_rows_of_any_width(encoder):
    config = small_config(**SIZES | encoder)
    parameters = random_parameters(config)
    graph, state = nnx.split(random_model(config))
    random = np.random.default_rng(0)
    texts = [random.integers(0, 82, length).astype(np.int32) for length in (7, 3, 12, 1, 5, 16, 2, 1, 4)]
    expected = np.stack([reference_vector(text, parameters["tower"], config.encoder) for text in texts])
    rows = assign_rows([len(text) for text in texts], row_tokens=16)
    tokens, segments, places = lay_out(texts, rows, row_tokens=16, num_rows=rows.count)
    packed = np.asarray(encode_rows(graph, state, tokens, segments)).reshape(-1, config.encoder.width)
    np.testing.assert_allclose(packed[places], expected, atol=1e-6)
    empty = np.setdiff1d(np.arange(len(packed)), places)
    assert len(empty)
    assert not packed[empty].any()
    alone = np.full((len(texts), 24), -1, np.int32)
    for row, text in zip(alone, texts, strict=True):
        row[: len(text)] = text
    np.testing.assert_allclose(encode_rows(graph, state, alone, np.minimum(alone, 0))[:, 0], expected, atol=1e-6)


def test_texts_of_a_row_are_exactly_apart():
    """1,000 rows: new tokens in one text of a row change no bit of another text, nor of what it teaches the tables."""
    count = 1000
    tokens, segments = random_packings(count)
    config = small_config(**SIZES | {"hash_buckets": 2 * tokens.size, "vocabulary_size": 2 * tokens.size, "layers": 1})
    graph, state = nnx.split(random_model(config))
    weights = np.random.default_rng(1).normal(size=(count, 4, config.encoder.width)).astype(np.float32)

    @jax.jit
    def vectors_and_gradient(state, tokens, weights):
        def total(state):
            vectors = nnx.merge(graph, state).encode_rows(tokens, segments, tower="query")
            return (vectors * weights).sum(), vectors

        gradient, vectors = jax.grad(total, has_aux=True)(state)
        return vectors, nnx.to_pure_dict(gradient)["tower"]["feature_tables"]["unigrams"]["embedding"]

    chosen = np.random.default_rng(2).integers(0, segments.max(axis=1) + 1)
    changed = segments == chosen[:, None]
    others = np.arange(4)[None, :] != chosen[:, None]
    weights *= others[:, :, None]
    before, gradient_before = map(np.asarray, vectors_and_gradient(state, tokens, weights))
    other_tokens = np.where(changed, tokens + tokens.size, tokens)
    after, gradient_after = map(np.asarray, vectors_and_gradient(state, other_tokens, weights))
    np.testing.assert_array_equal(before[others], after[others])
    assert (before[~others] != after[~others]).any(axis=1).all()
    # Every token is another row of the table, so its row of the gradient is the token's own.
    untouched = tokens[(segments >= 0) & ~changed]
    np.testing.assert_array_equal(gradient_before[untouched], gradient_after[untouched])
    assert np.abs(gradient_before[untouched]).max() > 0
    assert not gradient_before[tokens[changed]].any()


def test_a_text_is_known_by_its_tokens_in_their_order_wherever_it_stands():
    rows = np.array([[5, 6, 7, -1, -1, -1, -1], [9, 5, 6, 7, 7, 6, 5], [5, 6, -1, -1, -1, -1, -1]], np.int32)
    segments = np.array([[0, 0, 0, -1, -1, -1, -1], [0, 1, 1, 1, 2, 2, 2], [0, 0, -1, -1, -1, -1, -1]], np.int32)
    found = np.asarray(identities(rows, segments, max_segments=3))
    assert found[0, 0] == found[1, 1]
    assert len({int(one) for one in (found[0, 0], found[1, 0], found[1, 2], found[2, 0])}) == 4


def test_collisions_are_as_rare_as_chance_allows():
    """Of n IDs in m buckets, m (1 - (1 - 1/m)^n) buckets are taken: 1 - 1/e of them for n = m."""
    count = 1 << 16
    tokens = np.arange(count, dtype=np.int32)
    neighbours = murmur3(tokens % 256, tokens // 256, seed=1)
    texts = identities(np.stack([tokens // 256, tokens % 256], axis=1), np.zeros((count, 2), np.int32), max_segments=1)
    expected = 1 - (1 - 1 / count) ** count
    for hashes in (murmur3(tokens, seed=0), neighbours, texts.ravel()):
        taken = len(np.unique(bucket(hashes, count))) / count
        assert taken == pytest.approx(expected, abs=0.005)
        # In 2^32 values, n^2 / 2^33 = .5 collisions are expected.
        assert count - len(np.unique(hashes)) <= 4


def test_each_feature_has_hashes_of_its_own():
    tokens = np.arange(1000, dtype=np.int32)
    one, other = (np.asarray(bucket(murmur3(tokens, tokens, seed=seed), 1000)) for seed in (1, 2))
    assert (one == other).mean() < 0.01


def test_it_learns():
    config = PLAIN.replace(encoder={"family": "hashed", "hash_buckets": 64, "feature_width": 8, "layers": 1})
    state, step, mesh = start(config, model_of=bert)
    losses = []
    for _ in range(30):
        state, metrics = step(state, device_batch(batch_of(), mesh))
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
def test_eight_devices_learn_as_one():
    config = PLAIN.replace(
        encoder={"family": "hashed", "hash_buckets": 64, "feature_width": 8, "layers": 2},
        loss={"matryoshka_dims": (4, 8)},
    )
    found = []
    for mesh_config in (MeshConfig(data=1), MeshConfig(data=2, fsdp=2, model=2)):
        state, step, mesh = start(config, mesh_config, bert)
        state, metrics = step(state, device_batch(batch_of(groups=sharding.num_groups(mesh)), mesh))
        found.append((float(metrics.loss), first_moments(state)))
    (loss, moments), (other_loss, other_moments) = found
    assert other_loss == pytest.approx(loss, rel=1e-6)
    largest = max(np.abs(moment).max() for moment in moments.values())
    assert max(np.abs(moments[name] - other_moments[name]).max() for name in moments) <= 1e-5 * largest


def test_tables_lie_over_the_mesh():
    config = small_config(**SIZES | {"hash_buckets": 64, "shared_towers": False})
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, model=4))
    places = sharding.tree_shardings(random_parameters(config), mesh)
    for tower in ("query_tower", "document_tower"):
        table = places[tower]["feature_tables"]["bigrams"]["embedding"]
        assert table.shard_shape((64, 8)) == (16, 4)
    assert all(place.is_fully_replicated for place in jax.tree.leaves(places["query_tower"]["output"]))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"hashed_features": ()}, "hashed_features must name one feature or more, each once"),
        ({"hashed_features": ("text", "text")}, "hashed_features must name one feature or more, each once"),
        ({"hash_buckets": 0}, "hash_buckets must lie in"),
        ({"feature_width": 0}, "feature_width must be positive"),
        ({"pooling": "last"}, "hashed features are pooled by their mean"),
        ({"head_width": 4}, "key_value_heads and head_width are those of Qwen, Mistral and Gemma"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(encoder, message):
    with pytest.raises(ValueError, match=message):
        small_config(**SIZES | encoder)


def test_dropout_follows_its_key():
    model = nnx.split(random_model(small_config(**SIZES | {"dropout": 0.5, "layers": 1})))
    row = np.arange(8, dtype=np.int32)[None], np.zeros((1, 8), np.int32)
    one, again, other = (encode_rows(*model, *row, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01
