"""Label lookup by document id against a plain dictionary."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.hashing import document_id_words
from crops_jax.labels import Level, dense_labels, repeated_queries, scored_sparse_labels, sparse_labels

LABELLED, COLUMNS = 6, 2
lookup = jax.jit(sparse_labels, static_argnames="labels_per_query")


def plain_lookup(labelled_ids, labelled_levels, document_ids):
    """The label matrix and the document mask, pair by pair."""
    first: dict[tuple[int, int], int] = {}
    for column, words in enumerate(map(tuple, document_ids.tolist())):
        if words != (0, 0):
            first.setdefault(words, column)
    matrix = np.zeros((len(labelled_ids), len(document_ids)), np.int32)
    for row in range(len(labelled_ids)):
        for words, level in zip(map(tuple, labelled_ids[row].tolist()), labelled_levels[row], strict=True):
            if words in first:
                matrix[row, first[words]] = level
    mask = np.zeros(len(document_ids), bool)
    mask[list(first.values())] = True
    return matrix, mask


def random_batch(seed, *, queries=5, pool=12):
    """Documents of a small pool, so that many are shared, some twice in the batch and some columns empty."""
    random = np.random.default_rng(seed)
    ids = document_id_words(f"document {i}" for i in range(pool))
    # Words that are equal in one half, and at the borders of 32 bits.
    ids[:4] = [[5, 7], [5, -7], [-5, 7], [np.iinfo(np.int32).min, np.iinfo(np.int32).max]]
    labelled_ids = np.zeros((queries, LABELLED, 2), np.int32)
    labelled_levels = np.zeros((queries, LABELLED), np.int32)
    for row in range(queries):
        count = random.integers(1, LABELLED + 1)
        labelled_ids[row, :count] = ids[random.choice(pool, count, replace=False)]
        labelled_levels[row, :count] = random.choice([-1, 1, 2, 3, 4, 5], count)
    document_ids = ids[random.integers(0, pool, queries * COLUMNS)]
    document_ids[random.random(queries * COLUMNS) < 0.2] = 0
    return labelled_ids, labelled_levels, document_ids


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**9))
def test_property_lookup_equals_a_dictionary(seed):
    batch = random_batch(seed)
    labels, mask, counters = lookup(*batch, labels_per_query=LABELLED)
    matrix, expected_mask = plain_lookup(*batch)
    assert (dense_labels(labels, len(batch[2])) == matrix).all()
    assert (mask == expected_mask).all()
    assert counters.label_overflow == 0
    assert counters.duplicate_documents == (batch[2] != 0).any(axis=1).sum() - expected_mask.sum()
    own = batch[2].reshape(len(matrix), COLUMNS, 2)
    avoided = sum(
        matrix[row, column] != 0 and not (own[row] == batch[2][column]).all(axis=1).any()
        for row in range(len(matrix))
        for column in np.flatnonzero(expected_mask)
    )
    assert counters.false_negatives_avoided == avoided


def test_scores_follow_the_entries_that_are_kept():
    scored_lookup = jax.jit(scored_sparse_labels, static_argnames="labels_per_query")
    for seed in range(5):
        ids, levels, documents = random_batch(seed)
        scores = np.random.default_rng(seed).uniform(size=levels.shape).astype(np.float32)
        scores[scores < 0.3] = np.nan
        for kept in (LABELLED, 2):
            *plain, found = scored_lookup(ids, levels, scores, documents, labels_per_query=kept)
            for one, other in zip(
                jax.tree.leaves(plain), jax.tree.leaves(lookup(ids, levels, documents, labels_per_query=kept))
            ):
                np.testing.assert_array_equal(one, other)
            for row, columns in enumerate(np.asarray(plain[0].doc_index)):
                by_id = dict(zip(map(tuple, ids[row].tolist()), scores[row], strict=True))
                expected = [by_id[tuple(documents[column].tolist())] if column >= 0 else np.nan for column in columns]
                np.testing.assert_array_equal(found[row], np.array(expected, np.float32))


def test_another_querys_positive_that_is_also_this_ones_is_no_negative():
    a, b, c = document_id_words(["a", "b", "c"])
    zero = np.zeros(2, np.int32)
    labelled_ids = np.array([[a, b], [b, zero], [c, zero]])
    levels = np.array([[5, 4], [4, 0], [3, 0]], np.int32)
    documents = np.array([a, zero, b, zero, c, b])
    labels, mask, counters = lookup(labelled_ids, levels, documents, labels_per_query=4)
    assert labels.doc_index.shape == (3, 2)
    assert dense_labels(labels, 6).tolist() == [[5, 0, 4, 0, 0, 0], [0, 0, 4, 0, 0, 0], [0, 0, 0, 0, 3, 0]]
    assert mask.tolist() == [True, False, True, False, True, False]
    assert counters == (1, 1, 0)


def test_overflow_keeps_the_highest_levels_and_is_counted():
    ids = document_id_words("abcdef")
    levels = np.array([[1, 4, -1, 5, 2, 3]], np.int32)
    labels, _, counters = lookup(ids[None], levels, ids, labels_per_query=3)
    assert dense_labels(labels, 6).tolist() == [[0, 4, 0, 5, 0, 3]]
    assert counters.label_overflow == 3


def test_no_match_at_all_gives_padding():
    ids = document_id_words("ab")
    labels, mask, _ = lookup(ids[None, :1], np.array([[4]], np.int32), ids[1:], labels_per_query=2)
    assert (labels.doc_index == -1).all()
    assert mask.all()


def test_padding_of_labelled_ids_matches_no_empty_column():
    labels, mask, _ = lookup(
        np.zeros((1, 3, 2), np.int32), np.full((1, 3), 4, np.int32), np.zeros((2, 2), np.int32), labels_per_query=3
    )
    assert (labels.doc_index == -1).all()
    assert not mask.any()


def test_repeated_queries_are_all_but_the_first():
    tokens = jnp.array([[1, 2, -1], [1, 2, 3], [1, 2, -1], [2, 1, -1], [1, 2, -1]], jnp.int32)
    assert repeated_queries(tokens).tolist() == [False, False, True, False, True]


def test_levels_are_those_of_the_paper():
    assert {level.name: int(level) for level in Level} == {
        "IN_BATCH_NEGATIVE": 0,
        "FILTERED_BEFORE_RANKING": 1,
        "RANKED_NOT_SHOWN": 2,
        "SHOWN_NOT_CLICKED": 3,
        "POSITIVE": 4,
        "QUERY_LEVEL_POSITIVE": 5,
    }
