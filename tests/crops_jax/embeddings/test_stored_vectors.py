"""Vectors of each type: what they lose, what a file takes, and that NumPy alone reads it."""

import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.embeddings import open_embeddings, read_layout, stored_vectors
from crops_jax.embeddings.stored_vectors import TYPES, decoded, encoded
from crops_jax.errors import InputError
from crops_jax.retrieval.exact import exact_top_k
from crops_jax.retrieval.mapped import mapped_top_k, read_blocks, take_rows
from tests.embedding_folders import write_embeddings


def unit(rows, dim, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(vectors, others):
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    return (vectors.astype(np.float64) * others).sum(axis=1) / lengths


def test_bfloat16_is_that_of_jax():
    vectors = np.concatenate([unit(50, 33), np.zeros((1, 33), np.float32), -unit(1, 33)])
    # Halfway between two neighbours, where rounding goes to the even one.
    vectors[0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 - 2**-9]
    found = decoded(encoded(vectors, "bfloat16"), "bfloat16")
    np.testing.assert_array_equal(found, np.asarray(jnp.asarray(vectors, jnp.bfloat16), np.float32))


@pytest.mark.parametrize("dim", [2, 96, 768])
def test_what_is_lost_stays_within_its_bound(dim):
    vectors = unit(400, dim)
    assert cosines(vectors, decoded(encoded(vectors, "bfloat16"), "bfloat16")).min() >= 1 - 2**-17 - 1e-7
    found = decoded(encoded(vectors, "int8"), "int8")
    step = np.abs(vectors).max(axis=1) / 127
    assert (np.abs(found - vectors).max(axis=1) <= step / 2 * 1.0001).all()
    error = np.sqrt(dim) * step / 2
    assert (cosines(vectors, found) >= np.sqrt(1 - error**2) - 1e-7).all()
    if dim > 2:
        assert cosines(vectors, found).min() >= 0.9999


def test_int8_of_zeros_and_of_one_large_number():
    vectors = np.zeros((3, 5), np.float32)
    vectors[1, 2], vectors[2] = -1, [1, 1e-3, -5e-3, 0, 0.5]
    found = decoded(encoded(vectors, "int8"), "int8")
    np.testing.assert_array_equal(found[:2], vectors[:2])
    np.testing.assert_allclose(found[2], vectors[2], atol=0.5 / 127 + 1e-7)


def test_numpy_alone_reads_each_type_as_its_description_says(tmp_path):
    vectors, ids = unit(7, 6), [f"d{i}" for i in range(7)]
    stored = {}
    for dtype in TYPES:
        folder = write_embeddings(
            tmp_path / dtype, ids, vectors, tower="document", normalise=False, dtype=dtype, shard_rows=7
        )
        stored[dtype] = np.load(folder / "embeddings-00000-of-00001.npy", allow_pickle=False)
    np.testing.assert_array_equal(stored["float32"], vectors)
    halves = (stored["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(halves, decoded(encoded(vectors, "bfloat16"), "bfloat16"))
    bytes_ = stored["int8"]["scale"][:, None] * stored["int8"]["values"]
    np.testing.assert_array_equal(bytes_, decoded(encoded(vectors, "int8"), "int8"))


def test_files_are_half_and_a_quarter_as_large(tmp_path):
    vectors, ids = unit(256, 512), [str(i) for i in range(256)]
    size = {}
    for dtype in TYPES:
        folder = write_embeddings(tmp_path / dtype, ids, vectors, tower="document", shard_rows=256, dtype=dtype)
        size[dtype] = (folder / "embeddings-00000-of-00001.npy").stat().st_size
    assert 1.99 < size["float32"] / size["bfloat16"] < 2.01
    assert 3.9 < size["float32"] / size["int8"] < 4.01


@pytest.mark.parametrize("dtype", TYPES)
def test_search_over_mapped_shards_is_that_over_decoded_vectors(tmp_path, dtype):
    vectors, ids = unit(23, 8), [f"d{i}" for i in range(23)]
    found = open_embeddings(
        write_embeddings(tmp_path / "e", ids, vectors, tower="document", shard_rows=9, dtype=dtype, normalise=False)
    )
    assert (found.dtype, found.dim, found.ids) == (dtype, 8, ids)
    whole = decoded(encoded(vectors, dtype), dtype)
    np.testing.assert_array_equal(found.array(), whole)
    np.testing.assert_array_equal(take_rows(found.shards, np.array([22, 0, 9, 8])), whole[[22, 0, 9, 8]])
    queries = unit(5, 8, seed=1)
    expected = exact_top_k(queries, whole, 4)
    for got, wanted in zip(mapped_top_k(queries, found.shards, 4, block_rows=5), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_no_more_than_a_block_is_decoded_at_once(tmp_path, monkeypatch):
    vectors, ids = unit(40, 8), [str(i) for i in range(40)]
    found = open_embeddings(
        write_embeddings(tmp_path / "e", ids, vectors, tower="document", shard_rows=40, dtype="int8", normalise=False)
    )
    rows, decode = [], stored_vectors.decoded

    def counted(stored, dtype):
        rows.append(len(stored))
        return decode(stored, dtype)

    monkeypatch.setattr(stored_vectors, "decoded", counted)
    blocks = np.concatenate([block for _, block in read_blocks(found.shards, 16)])
    np.testing.assert_array_equal(blocks, decode(encoded(vectors, "int8"), "int8"))
    assert rows == [16, 16, 8]


def test_a_type_that_is_not_known_or_not_the_files_is_named(tmp_path):
    folder = write_embeddings(tmp_path / "e", ["a"], unit(1, 4), tower="query", dtype="int8")
    manifest = (folder / "manifest.json").read_text()
    for other, message in (("float16", "dtype is float16"), ("bfloat16", r"expected uint16 of \(1, 4\)")):
        (folder / "manifest.json").write_text(manifest.replace('"int8"', f'"{other}"'))
        with pytest.raises(InputError, match=message):
            open_embeddings(folder)
    (folder / "manifest.json").write_text(manifest.replace('"dtype": "int8",', ""))
    with pytest.raises(InputError, match=r"it has no layout of embeddings \('dtype'\); embed again"):
        read_layout(folder)
