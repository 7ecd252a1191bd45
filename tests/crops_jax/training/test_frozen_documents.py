"""The query tower alone is trained, on the first documents of each query in a corpus of frozen vectors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words
from crops_jax.input_pipeline import Batch
from crops_jax.training.frozen_documents import FrozenDocuments, check_frozen, first_of_corpus, loss_over_corpus
from tests.tiny_run import CONFIG

QUERY = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
VECTORS = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], np.float32)
POSITIVES = np.array([[3, -1], [2, 0]], np.int32)


def scored(top: int, queries=QUERY):
    return first_of_corpus(jnp.asarray(queries), jnp.asarray(VECTORS), jnp.asarray(POSITIVES), top=top)


def test_the_first_documents_less_the_positives_by_hand():
    found = scored(2)
    # The first query ranks 0, 1, 3, 4, 2 and has the positive 3; the second ranks 2, 4, 3, 1, 0 with positives 2 and 0.
    np.testing.assert_allclose(found.score[0, [0, 2, 3]], [0.6, 0.9, 0.8])
    np.testing.assert_allclose(found.score[1], [0.8, 0.1, 0.5, 0.4])
    assert found.level.tolist() == [[4, -1, 0, 0], [4, 4, 0, 0]]
    assert found.anchor_level.tolist() == [[4, 0], [4, 4]]
    # More than the corpus has: the second query has three other documents.
    assert scored(9).level.tolist() == [[4, -1, 0, 0, 0, 0, -1], [4, 4, 0, 0, 0, -1, -1]]


def reference(metric: str, top: int, temperature: float) -> float:
    """LambdaLoss of ADORE from its definition, in float64: a pair counts by what exchanging its ranks would change."""
    total, pairs = 0.0, 0
    for query, positives in zip(QUERY.astype(float), ([3], [2, 0]), strict=True):
        scores = VECTORS.astype(float) @ query
        others = sorted((d for d in range(5) if d not in positives), key=lambda d: -scores[d])[:top]
        rank = {d: r for r, d in enumerate(sorted([*positives, *others], key=lambda d: -scores[d]), start=1)}
        best = sum(15 / math.log2(1 + place) for place in range(1, len(positives) + 1))
        for a in positives:
            for b in others:
                change = abs(1 / rank[a] - 1 / rank[b])
                if metric == "ndcg":
                    change = 15 * abs(1 / math.log2(1 + rank[a]) - 1 / math.log2(1 + rank[b])) / best
                total += change * math.log1p(math.exp(-(scores[a] - scores[b]) / temperature))
                pairs += 1
    return total / pairs


@pytest.mark.parametrize("top", [2, 9])
@pytest.mark.parametrize("metric", ["mrr", "ndcg"])
def test_the_loss_is_that_of_the_definition(metric, top):
    loss, levels = loss_over_corpus(f"lambda_{metric}", scored(top), jnp.float32(0.3), counted=jnp.ones(2, bool))
    assert float(loss) == pytest.approx(reference(metric, top, 0.3), rel=1e-5)
    # Of the three positives, only document 2 of the second query is before all others.
    assert (levels.anchors.tolist(), levels.recalled.tolist()) == ([0, 0, 0, 3, 0], [0, 0, 0, 1, 0])
    assert float(levels.score_gap[3]) == pytest.approx((0.6 - 0.9) + (0.8 - 0.5) + (0.1 - 0.5), abs=1e-6)


def test_a_repeated_query_does_not_count():
    loss, levels = loss_over_corpus("pairwise_log", scored(2), jnp.float32(1.0), counted=jnp.array([True, False]))
    expected = np.mean([np.log1p(np.exp(-(0.6 - other))) for other in (0.9, 0.8)])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert levels.anchors.tolist() == [0, 0, 0, 1, 0]


def test_the_gradient_moves_the_query_towards_its_positive():
    def loss(queries):
        return loss_over_corpus("lambda_mrr", scored(3, queries), jnp.float32(0.3), counted=jnp.ones(2, bool))[0]

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(QUERY)))
    assert gradient[0] @ (VECTORS[3] - VECTORS[0]) < 0
    step = np.zeros((2, 2), np.float32)
    step[0, 0] = 1e-2
    numeric = (float(loss(QUERY + step)) - float(loss(QUERY - step))) / 2e-2
    assert gradient[0, 0] == pytest.approx(numeric, rel=2e-2)


def test_positives_are_found_by_the_hashes_of_their_ids():
    ids = [f"d{n}" for n in range(50)]
    documents = FrozenDocuments(ids, np.ones((50, 2), np.float32))
    labelled = np.zeros((2, 3, 2), np.int32)
    labelled[0], labelled[1, 0] = document_id_words(["d7", "d3", "unknown"]), document_id_words(["d49"])[0]
    levels = np.array([[4, 1, 5], [5, 0, 0]], np.int32)
    batch = Batch((), np.zeros((2, 1), np.int32), np.zeros((2, 2), np.int32), labelled, levels)
    assert documents.positive_rows(batch).tolist() == [[7, -1, -1], [49, -1, -1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"name": "lambda_mrr"}}, "--encoder.shared-towers False"),
        ({"encoder": {"shared_towers": False}}, "takes the losses ranknet, lambda_mrr"),
    ],
)
def test_a_configuration_that_cannot_freeze_documents_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_frozen(CONFIG.replace(**changes))
