import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.hashing import id_hashes
from crops_jax.retrieval.hard_negatives import Labelled, Selection, choose_negatives, rounded, score_limits

DOCUMENTS = 9


def labelled(*pairs):
    query, document, positive = zip(*pairs, strict=True) if pairs else ((), (), ())
    return Labelled(np.array(query, np.int64), np.array(document, np.int64), np.array(positive, bool))


def choose(scores, indices, known, selection, *, limits=None, equals=None, queries=None):
    scores, indices = np.array(scores, float), np.array(indices)
    return choose_negatives(
        scores,
        indices,
        known,
        selection,
        documents=DOCUMENTS,
        limits=np.full(len(scores), np.inf) if limits is None else np.array(limits),
        query_hashes=id_hashes(queries or [f"q{i}" for i in range(len(scores))]),
        document_hashes=id_hashes([f"d{i}" for i in range(DOCUMENTS)]),
        equals=equals,
    )


def reference(scores, indices, known, selection, limit, equals):
    """One query, from the definition; sampling by rank."""
    positives = {equals[d] for d, positive in known if positive}
    negatives = {d for d, positive in known if not positive}
    new, met, rank = [], [], 0
    for score, document in zip(scores, indices, strict=True):
        if document < 0 or equals[document] in positives:
            continue
        rank += 1
        if not selection.skip < rank <= selection.top or not score < limit:
            continue
        if document in negatives:
            met.append(document)
        elif len(new) < selection.per_query:
            new.append(document)
    return new, met


def test_ranks_are_counted_without_positives():
    known = labelled((0, 3, True), (0, 5, False), (1, 1, True))
    found = choose(
        [[0.9, 0.8, 0.7, 0.6, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5]],
        [[3, 4, 5, 6, 7], [4, 3, 2, 1, 0]],
        known,
        Selection(top=3, skip=1, per_query=9),
    )
    # The first query has ranks 4, 5, 6; the second 4, 3, 2.
    np.testing.assert_array_equal(found.new, [[0, 0, 0, 1, 0], [0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(found.known, [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(found.positive, [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    assert not found.beyond_margin.any()


def test_what_equals_a_positive_is_one_for_that_query_only():
    equals = np.array([0, 1, 2, 1, 4, 5, 6, 7, 8])
    known = labelled((0, 1, True), (0, 3, False), (1, 0, True))
    found = choose([[0.9, 0.8], [0.9, 0.8]], [[3, 2], [3, 2]], known, Selection(), equals=equals)
    np.testing.assert_array_equal(found.positive, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(found.new, [[0, 1], [1, 1]])
    assert not found.known.any()


@pytest.mark.parametrize(
    ("margins", "limits"),
    [
        ({}, [np.inf] * 4),
        ({"absolute_margin": 0.25}, [0.55, -0.45, -np.inf, 0.25]),
        ({"relative_margin": 0.1}, [0.72, -0.22, -np.inf, 0.45]),
        ({"relative_margin": 0.1, "margin_to": "least"}, [0.27, -0.44, -np.inf, 0.45]),
        ({"absolute_margin": 0.0}, [0.8, -0.2, -np.inf, 0.5]),
        ({"absolute_margin": 0.25, "relative_margin": 0.9}, [0.08, -0.45, -np.inf, 0.05]),
    ],
)
def test_limits(margins, limits):
    # Query 0 has positives .8 and .3, query 1 -.2 and -.4, query 2 none, query 3 .5. A share of a negative score moves
    # the limit down too.
    row, scores = np.array([0, 0, 1, 1, 3]), np.array([0.8, 0.3, -0.2, -0.4, 0.5])
    found = score_limits(Selection(**margins), queries=4, row=row, scores=scores)
    np.testing.assert_array_equal(found, limits)


def test_a_score_at_the_limit_is_too_near():
    found = choose([[0.55, 0.549999, 0.3]], [[0, 1, 2]], labelled((0, 8, True)), Selection(), limits=[0.55])
    np.testing.assert_array_equal(found.beyond_margin, [[1, 0, 0]])
    np.testing.assert_array_equal(found.new, [[0, 1, 1]])


def test_random_sampling_depends_on_seed_query_and_document_alone():
    scores, indices = np.linspace(0.9, 0.1, 8)[None], np.arange(8)[None]
    selection = Selection(sampling="random", per_query=3, top=6, seed=1)
    known = labelled((0, 1, True))
    first = choose(scores, indices, known, selection)
    assert first.new.sum() == 3
    assert not first.new[0, 1]
    assert not first.new[0, 7]  # rank 7
    # The same query elsewhere, its documents in another order and another query beside it.
    turned = choose(
        np.repeat(scores, 2, 0),
        np.stack([indices[0], indices[0][[3, 2, 1, 0, 4, 5, 6, 7]]]),
        labelled((1, 1, True)),
        selection,
        queries=["other", "q0"],
    )
    assert set(np.arange(8)[first.new[0]]) == set(np.array([3, 2, 1, 0, 4, 5, 6, 7])[turned.new[1]])
    others = [choose(scores, indices, known, Selection(sampling="random", per_query=3, seed=s)).new for s in range(20)]
    drawn = np.concatenate(others).sum(axis=0)
    assert drawn[1] == 0
    assert (np.delete(drawn, 1) > 0).all()


@settings(max_examples=200)
@given(st.data())
def test_choice_is_the_reference_and_never_a_known_positive(data):
    queries, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, DOCUMENTS))
    equals = np.array(data.draw(st.lists(st.integers(0, DOCUMENTS - 1), min_size=DOCUMENTS, max_size=DOCUMENTS)))
    pairs = data.draw(
        st.dictionaries(st.tuples(st.integers(0, queries - 1), st.integers(0, DOCUMENTS - 1)), st.booleans())
    )
    top = data.draw(st.integers(1, 8))
    selection = Selection(
        top=top,
        skip=data.draw(st.integers(0, top - 1)),
        per_query=data.draw(st.integers(1, 5)),
        sampling=data.draw(st.sampled_from(["top", "random"])),
    )
    indices = np.array([data.draw(st.permutations(range(DOCUMENTS)))[:width] for _ in range(queries)])
    ended = data.draw(st.integers(0, width))
    indices[0, ended:] = -1
    scores = np.tile(np.round(np.linspace(0.9, 0.1, width), 1), (queries, 1))
    limits = np.array(data.draw(st.lists(st.sampled_from([0.3, 0.5, np.inf]), min_size=queries, max_size=queries)))
    known = labelled(*((q, d, positive) for (q, d), positive in pairs.items()))
    found = choose(scores, indices, known, selection, limits=limits, equals=equals)
    for query in range(queries):
        own = [(d, positive) for (q, d), positive in pairs.items() if q == query]
        taken = indices[query][found.new[query]].tolist()
        met = indices[query][found.known[query]].tolist()
        want, want_met = reference(scores[query], indices[query], own, selection, limits[query], equals)
        assert met == want_met
        assert not {equals[d] for d in taken} & {equals[d] for d, positive in own if positive}
        assert not set(taken) & {d for d, _ in own}
        if selection.sampling == "top":
            assert taken == want
        else:
            assert len(taken) == len(want)


def test_rounding_stays_within_a_cosine():
    np.testing.assert_array_equal(rounded(np.array([1.0000001, -1.0000001, -1e-9, 0.1234567])), [1, -1, 0, 0.123457])
    assert not np.signbit(rounded(np.array([-1e-9])))[0]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"top": 0}, "--skip"),
        ({"top": 5, "skip": 5}, "--skip must be at least 0 and below --top"),
        ({"per_query": 0}, "--per-query must be at least 1"),
        ({"absolute_margin": -0.1}, "--absolute-margin must lie in 0 to 2"),
        ({"absolute_margin": float("nan")}, "--absolute-margin"),
        ({"relative_margin": 1.5}, "--relative-margin must lie in 0 to 1"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(given_, message):
    with pytest.raises(ValueError, match=message):
        Selection(**given_)
