import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from crops_jax.retrieval.exact import exact_top_k, inner_products
from crops_jax.retrieval.mapped import mapped_top_k, read_blocks, take_rows


def embeddings(count, dim, seed, *, coarse=False):
    values = np.random.default_rng(seed).standard_normal((count, dim))
    return (np.round(values) if coarse else values).astype(np.float32)


def cut(docs, *sizes):
    return tuple(np.split(docs, np.cumsum(sizes)))


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("block_rows", [7, 100, 1000])
def test_blocks_answer_as_one_search(coarse, block_rows):
    queries, docs = embeddings(6, 12, 0, coarse=coarse), embeddings(230, 12, 1, coarse=coarse)
    order = np.random.default_rng(2).permutation(230)
    told = []
    scores, indices = mapped_top_k(
        queries, cut(docs, 50, 1, 99), 20, order=order, block_rows=block_rows, progress=told.append
    )
    wanted = exact_top_k(queries, docs, 20, order=order)
    np.testing.assert_array_equal(scores, wanted[0])
    np.testing.assert_array_equal(indices, wanted[1])
    assert sum(told) == 6 * 230


def test_many_devices_and_the_whole_corpus():
    queries, docs = embeddings(3, 8, 3), embeddings(40, 8, 4)
    mesh = Mesh(np.array(jax.devices()), ("docs",))
    scores, indices = mapped_top_k(queries, (docs,), 40, mesh=mesh, block_rows=17)
    wanted = exact_top_k(queries, docs, 40)
    np.testing.assert_array_equal(scores, wanted[0])
    np.testing.assert_array_equal(indices, wanted[1])


def test_rows_and_blocks_come_from_their_shards():
    docs = embeddings(11, 3, 5)
    shards = cut(docs, 4, 4)
    np.testing.assert_array_equal(take_rows(shards, np.array([10, 0, 4, 4, 3])), docs[[10, 0, 4, 4, 3]])
    assert take_rows(shards, np.array([], np.int64)).shape == (0, 3)
    blocks = list(read_blocks(shards, 5))
    assert [first for first, _ in blocks] == [0, 5, 10]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), docs)


def test_k_beyond_the_corpus_is_refused():
    with pytest.raises(ValueError, match="1 to the number of documents"):
        mapped_top_k(embeddings(1, 3, 0), (embeddings(4, 3, 1),), 5)


def test_inner_products_are_the_scores_of_the_search():
    queries, docs = embeddings(5, 33, 6), embeddings(70, 33, 7)
    scores, indices = exact_top_k(queries, docs, 9)
    row = np.repeat(np.arange(5), 9)
    np.testing.assert_array_equal(inner_products(queries[row], docs[indices.ravel()]), scores.ravel())
    with pytest.raises(ValueError, match="both be"):
        inner_products(queries, docs)
