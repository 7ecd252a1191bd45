import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from crops_jax.retrieval import exact, exact_top_k


def embeddings(count, dim, seed, *, coarse=False):
    values = np.random.default_rng(seed).standard_normal((count, dim))
    if coarse:  # few distinct values: many exact ties
        values = np.round(values)
    return values.astype(np.float32)


def plain(queries, docs, k, order=None):
    """The definition: float32 products summed by halving, ties by order."""
    order = np.arange(len(docs)) if order is None else order
    terms = queries[:, None, :] * docs[None, :, :]
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        terms = np.concatenate([terms[..., :half] + terms[..., half : 2 * half], terms[..., 2 * half :]], axis=-1)
    scores = terms[..., 0]
    best = np.lexsort((np.broadcast_to(order, scores.shape), -scores))[:, :k]
    return np.take_along_axis(scores, best, 1), best


@pytest.mark.parametrize("dim", [1, 33])
@pytest.mark.parametrize("coarse", [False, True])
# Of a tile of 6,001 documents groups of groups are looked at; of one of 1,500 groups; of the small ones all scores.
@pytest.mark.parametrize(("count", "k", "tile"), [(401, 10, 67), (401, 10, 16384), (6001, 1, 16384), (6001, 1, 1500)])
def test_scores_and_order_are_the_definition_bit_for_bit(dim, coarse, count, k, tile):
    queries, docs = embeddings(13, dim, 0, coarse=coarse), embeddings(count, dim, 1, coarse=coarse)
    scores, indices = exact_top_k(queries, docs, k, tile_docs=tile, tile_queries=5)
    wanted_scores, wanted = plain(queries, docs, k)
    np.testing.assert_array_equal(scores, wanted_scores)
    np.testing.assert_array_equal(indices, wanted)
    assert scores.dtype == np.float32
    assert indices.dtype == np.int32


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_eight_devices_answer_as_one(coarse, axis_type):
    queries, docs = embeddings(9, 24, 2, coarse=coarse), embeddings(1003, 24, 3, coarse=coarse)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    one, eight = (exact_top_k(queries, docs, 20, mesh=m, tile_docs=50) for m in (None, mesh))
    np.testing.assert_array_equal(one[0], eight[0])
    np.testing.assert_array_equal(one[1], eight[1])


def test_a_zero_has_the_same_sign_over_eight_devices():
    queries, docs = np.float32([[-1.0], [1.0]]), np.zeros((400, 1), np.float32)
    one, eight = (exact_top_k(queries, docs, 20, mesh=m)[0] for m in (None, Mesh(np.array(jax.devices()), ("data",))))
    assert not np.signbit(one).any()
    assert not np.signbit(eight).any()


def test_searches_at_the_same_time_run_on_the_callers_device(monkeypatch):
    used, scan = set(), exact._scan

    def watched(*arguments, **options):
        found = scan(*arguments, **options)
        used.update(found[0].devices())
        return found

    monkeypatch.setattr(exact, "_scan", watched)
    with jax.default_device(jax.devices()[3]):
        exact_top_k(embeddings(9, 4, 20), embeddings(500, 4, 21), 3, tile_queries=2)
    assert used == {jax.devices()[3]}


def test_more_devices_than_documents_a_device_needs():
    queries, docs = embeddings(3, 8, 2), embeddings(200, 8, 3)
    eight = exact_top_k(queries, docs, 30, mesh=Mesh(np.array(jax.devices()), ("data",)))
    np.testing.assert_array_equal(eight[1], plain(queries, docs, 30)[1])


def test_a_permuted_corpus_gives_the_same_documents_when_ties_go_by_a_given_order():
    queries, docs = embeddings(11, 16, 4, coarse=True), embeddings(700, 16, 5, coarse=True)
    rank_of_id = np.random.default_rng(6).permutation(700)
    shuffled = np.random.default_rng(7).permutation(700)
    scores, indices = exact_top_k(queries, docs, 15, order=rank_of_id)
    other_scores, other = exact_top_k(queries, docs[shuffled], 15, order=rank_of_id[shuffled], tile_docs=90)
    np.testing.assert_array_equal(scores, other_scores)
    np.testing.assert_array_equal(indices, shuffled[other])


def test_equal_documents_beyond_any_slack_are_still_taken_in_order():
    docs = np.repeat(embeddings(2, 12, 8), 2000, axis=0)
    queries = docs[[0, 3999]]
    order = np.arange(4000)[::-1].copy()
    _, indices = exact_top_k(queries, docs, 5, order=order, tile_docs=333)
    np.testing.assert_array_equal(indices, [[1999, 1998, 1997, 1996, 1995], [3999, 3998, 3997, 3996, 3995]])


def test_jax_arrays_and_half_precision_are_taken():
    queries, docs = embeddings(4, 16, 9), embeddings(300, 16, 10)
    half = jax.numpy.asarray(docs).astype("bfloat16")
    scores, indices = exact_top_k(jax.numpy.asarray(queries), half, 3)
    wanted = plain(queries, np.asarray(half.astype("float32")), 3)
    np.testing.assert_array_equal(scores, wanted[0])
    np.testing.assert_array_equal(indices, wanted[1])


def test_k_may_be_all_documents_and_there_may_be_no_queries():
    docs = embeddings(6, 4, 11)
    assert sorted(exact_top_k(docs[:1], docs, 6)[1][0]) == list(range(6))
    assert exact_top_k(docs[:0], docs, 2)[0].shape == (0, 2)


@pytest.mark.parametrize("count", [20, 501])
@pytest.mark.parametrize("sign", [-1, 1])
def test_inner_products_beyond_float32_are_refused(count, sign):
    queries, docs = np.full((3, 8), 1e38, np.float32), np.full((count, 8), sign * 1e38, np.float32)
    with pytest.raises(ValueError, match="exceed float32"):
        exact_top_k(queries, docs, 10)


def test_a_product_beyond_float32_hides_no_document():
    # Summed from the left these are -inf, by halving 0.
    docs = np.tile(np.float32([-3e19, -3e19, 3e19, 3e19]), (5000, 1))
    docs[-20:] = [-1e19, 0, 0, 0]
    scores, indices = exact_top_k(np.full((1, 4), 1e19, np.float32), docs, 40)
    np.testing.assert_array_equal(indices[0], np.arange(40))
    np.testing.assert_array_equal(scores[0], 0)


def test_very_small_embeddings_are_told_apart():
    queries, docs = embeddings(4, 16, 12) * 1e-10, embeddings(600, 16, 13) * 1e-20
    scores, indices = exact_top_k(queries.astype(np.float32), docs.astype(np.float32), 5)
    wanted_scores, wanted = plain(queries.astype(np.float32), docs.astype(np.float32), 5)
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(scores, wanted_scores)


@pytest.mark.parametrize(
    ("queries", "docs", "k", "order", "words"),
    [
        (np.zeros((2, 3)), np.zeros((4, 5)), 1, None, "dim"),
        ([[0.0, 1.0]], np.zeros((4, 2)), 1, None, "must be arrays of JAX or NumPy, found list"),
        (np.zeros((2, 3)), np.zeros((4, 3)), 5, None, "number of documents"),
        (np.zeros((2, 3)), np.zeros((4, 3)), 0, None, "number of documents"),
        (
            np.zeros((2, 3)),
            np.zeros((4, 3)),
            1.5,
            None,
            "k must be a whole number from 1 to .* found 1.5",
        ),
        (np.zeros((2, 3)), np.full((4, 3), np.nan), 1, None, "docs holds"),
        (np.full((2, 3), np.inf), np.zeros((4, 3)), 1, None, "queries holds"),
        (np.zeros((2, 3)), np.zeros((4, 3)), 1, np.arange(3), "one entry for each document"),
    ],
)
def test_what_does_not_fit_is_refused(queries, docs, k, order, words):
    with pytest.raises(ValueError, match=words):
        exact_top_k(queries, docs, k, order=order)
