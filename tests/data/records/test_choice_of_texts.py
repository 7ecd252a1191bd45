"""Which of a query's documents keep their texts, and which queries are for dev."""

import numpy as np
import pytest

from crops_jax.hashing import sha256_hashes
from data.records.builder import sum_counts, text_counts
from data.records.label_groups import choose_texts, group_labels
from data.write_records import split_queries
from tests.data.records.labels import label_rows, table


@pytest.mark.parametrize(
    ("fives", "fours", "negatives", "expected"),
    [
        (1, 2, 20, (1, 2, 5)),
        (20, 20, 20, (6, 0, 2)),
        (3, 20, 20, (3, 3, 2)),
        (9, 0, 0, (8, 0, 0)),
        (0, 9, 1, (0, 7, 1)),
        (0, 0, 3, (0, 0, 3)),
    ],
)
def test_positives_come_first_and_a_quarter_is_kept_for_hard_negatives(fives, fours, negatives, expected):
    kinds = [5] * fives + [4] * fours + [1 + i % 3 for i in range(negatives)]
    groups = group_labels(table([("q", f"d{i}", level) for i, level in enumerate(kinds)] + [("other", "d0", 4)]))
    chosen = choose_texts(groups, np.ones(len(groups.levels), bool), documents_per_query=8, seed=0)
    levels = groups.levels[chosen & (groups.row_queries == groups.queries.index("q"))]
    assert ((levels == 5).sum(), (levels == 4).sum(), (levels < 4).sum()) == expected


def test_the_choice_of_texts_is_even_by_seed_and_not_by_what_else_is_there():
    rows = [("q", f"d{i}", 4) for i in range(12)]
    alone, among = group_labels(table(rows)), group_labels(table([*rows, *label_rows()]))

    def chosen(groups, seed):
        kept = choose_texts(groups, np.ones(len(groups.levels), bool), documents_per_query=4, seed=seed)
        kept &= groups.row_queries == groups.queries.index("q")
        return [groups.doc_ids[int(place)].as_py() for place in groups.documents[kept]]

    assert chosen(alone, 0) == chosen(among, 0)
    counts = np.unique([doc_id for seed in range(600) for doc_id in chosen(alone, seed)], return_counts=True)[1]
    assert counts == pytest.approx(np.full(12, 200), abs=60)


def test_documents_without_text_take_no_place():
    groups = group_labels(table([("q", f"d{i}", 4) for i in range(6)]))
    has_text = np.array([False, True, False, True, True, False])
    assert (choose_texts(groups, has_text, documents_per_query=3, seed=0) == has_text).all()


def test_splits_follow_from_the_query_alone_and_both_get_one():
    groups = group_labels(table([(f"query {i}", "d", 4) for i in range(4000)]))
    is_dev = split_queries(groups, np.ones(4000, bool), dev_fraction=0.1)
    assert is_dev.mean() == pytest.approx(0.1, abs=0.02)
    dev = {query for query, is_dev in zip(groups.queries, is_dev) if is_dev}
    fewer = group_labels(table([(f"query {i}", "d", 4) for i in range(2000)]))
    of_fewer = split_queries(fewer, np.ones(2000, bool), dev_fraction=0.1)
    assert {q for q, d in zip(fewer.queries, of_fewer) if d} == dev & set(fewer.queries)
    two = group_labels(table([("a", "d", 1), ("b", "d", 4)]))
    for fraction in (1e-9, 1 - 1e-9):
        assert split_queries(two, np.ones(2, bool), dev_fraction=fraction).sum() == 1
    assert not split_queries(two, np.ones(2, bool), dev_fraction=0.0).any()


@pytest.mark.parametrize("fraction", [1e-9, 0.05, 0.5, 1 - 1e-9])
def test_the_splits_are_chosen_among_queries_with_texts(fraction):
    """However few queries have texts: two of them are divided, and one alone is trained on."""
    groups = group_labels(table([(f"query {i}", "d", 4) for i in range(40)]))
    for chosen in ([3], [39], [0, 1], [7, 30, 31], [38, 39]):
        has_documents = np.isin(np.arange(40), chosen)
        is_dev = split_queries(groups, has_documents, dev_fraction=fraction)
        assert (has_documents & ~is_dev).any()
        assert (has_documents & is_dev).any() == (len(chosen) > 1)


def test_counts_of_parts_add_up_to_those_of_the_whole():
    def counts(rows):
        groups = group_labels(table(rows))
        has_text = np.array([not groups.doc_ids[int(d)].as_py().startswith("gone") for d in groups.documents])
        chosen = choose_texts(groups, has_text, documents_per_query=4, seed=0)
        return text_counts(groups, has_text, chosen, queries_cut=1)

    rows = [*label_rows(), ("last", "d1", 2)]
    parts = [[row for row in rows if hash_bit(row[0]) == bit] for bit in (0, 1)]
    assert sum_counts(map(counts, parts)) == counts(rows) | {"queries_cut": 2}


def hash_bit(query: str) -> int:
    return int(sha256_hashes([query])[0] & np.uint64(1))
