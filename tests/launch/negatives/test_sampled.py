"""Negatives that a sampler draws, that BM25 ranks, and label tables whose own negatives are left out."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.hashing import id_hashes, sha256_hashes
from crops_jax.negatives import SimAns, TriSampler
from data.labels.table import open_labels
from data.records.label_groups import dev_threshold
from launch.mine_negatives import mine_negatives
from launch.negatives.score_sampling import Positives, ScoreSampler, drawn_positives
from tests.embedding_folders import write_embeddings
from tests.launch.negatives.labelled import arguments, new_rows, read_rows, write_labels

POSITIVE = "search_log"


def test_simans_takes_the_document_whose_score_is_that_of_the_positive(folders):
    """The positive a has cosine 0.9. At temperature 0.01 and a = 1, b = c = 10 below it weigh e^-100 and d e^-400."""
    mine_negatives(arguments(folders, sampling="simans", temperature=0.01, per_query=2))
    assert new_rows(folders / "mined") == ["b", "c", "f"]  # f is a negative of the table, which is raised


def test_the_flags_have_the_defaults_of_the_samplers(folders):
    assert arguments(folders, sampling="simans").sampler == SimAns()
    assert arguments(folders, sampling="trisampler").sampler == TriSampler()


def test_simans_prefers_the_difference_b(folders):
    """At b = -20 the most probable score is 0.9 - 20 * 0.01 = 0.7, that of d; b, c and e differ by 10 from it."""
    mine_negatives(arguments(folders, sampling="simans", temperature=0.01, simans_b=-20.0, per_query=1))
    assert new_rows(folders / "mined") == ["d", "f"]


def test_trisampler_takes_documents_nearer_to_the_positive_than_to_the_query(tmp_path):
    """The query is (1, 0, 0). The positive p and x lie on one side of it, and y on the other: all have cosine 0.8.

    s(p, x) = 0.64 + 0.36 = 1 > 0.8 and s(p, y) = 0.64 - 0.36 = 0.28 < 0.8, so only x has a weight in the second stage.
    """
    write_labels(tmp_path / "labels", [("q", "p", 4, POSITIVE, None, None)])
    write_embeddings(tmp_path / "queries", ["q"], [[1, 0, 0]], tower="query")
    vectors = [[0.8, 0.6, 0], [0.8, 0.6, 1e-4], [0.8, -0.6, 0]]
    write_embeddings(tmp_path / "documents", ["p", "x", "y"], vectors, tower="document")
    for seed in range(8):
        given = {"sampling": "trisampler", "per_query": 1, "seed": seed, "output": str(tmp_path / f"mined{seed}")}
        mine_negatives(arguments(tmp_path, **given))
        assert new_rows(tmp_path / f"mined{seed}") == ["x"]


def sampled(sampler, scores, *, queries, seed=0, count=2):
    scores = np.array(scores)
    hashes = id_hashes(queries)
    positives = Positives(np.zeros(len(queries), np.int64), np.full(len(queries), 0.5))
    draw = ScoreSampler(sampler=sampler, temperature=0.5, seed=seed).draws(
        scores, np.tile(np.arange(scores.shape[1]), (len(scores), 1)), positives, hashes
    )
    return draw(np.ones(scores.shape, bool), count).tolist()


def test_the_draws_of_a_query_depend_on_itself_and_the_seed_alone():
    queries, rows = [f"q{n}" for n in range(40)], np.random.default_rng(0).uniform(0.3, 0.6, (40, 9))
    together = sampled(SimAns(), rows, queries=queries)
    assert together[7:9] == sampled(SimAns(), rows[7:9], queries=queries[7:9])
    assert together == sampled(SimAns(), rows, queries=queries)
    assert together != sampled(SimAns(), rows, queries=queries, seed=1)
    assert together != sampled(SimAns(), rows, queries=[f"other {query}" for query in queries])


def test_the_frequencies_are_those_of_simans():
    """Scores 0.5 and 1 at temperature 0.5 are 1 and 2, the positive's 1: weights 1 and 1/e, so 73 % of first draws."""
    first = [row[0] for row in sampled(SimAns(), [[0.5, 1.0]] * 3000, queries=[f"q{n}" for n in range(3000)])]
    share = 1 / (1 + np.exp(-1))
    assert first.count(0) / 3000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 3000))


def test_one_positive_of_each_query_is_drawn():
    queries, documents = id_hashes([f"q{n}" for n in range(400)]), id_hashes(["x", "y", "z"])
    query = np.repeat(np.arange(399), 2)
    document = np.tile([0, 2], 399)
    found = drawn_positives(query, document, document / 10, queries, documents, seed=0)
    assert found.document[399] == -1
    assert set(found.document[:399]) == {0, 2}
    assert 150 < (found.document[:399] == 2).sum() < 250
    np.testing.assert_array_equal(found.score[:399], found.document[:399] / 10)
    other = drawn_positives(query, document, document / 10, queries, documents, seed=1)
    assert (other.document != found.document).any()


def test_a_query_without_a_scored_positive_gets_no_draws():
    rows = np.full((2, 3), 0.4)
    sampler = ScoreSampler(sampler=SimAns(), temperature=1.0, seed=0)
    draw = sampler.draws(
        rows, np.zeros((2, 3), int), Positives(np.array([-1, 0]), np.array([0.0, 0.5])), id_hashes("ab")
    )
    drawn = draw(np.array([[True, True, True], [False, True, False]]), 2)
    assert drawn.tolist() == [[-1, -1], [1, -1]]


def logs_of(path, titles):
    path.mkdir()
    pq.write_table(pa.table({"doc_id": list(titles), "title": list(titles.values())}), path / "documents.parquet")
    pq.write_table(pa.table({"query": ["lamp"], "doc_id": ["e"], "grade": [1.0]}), path / "judgements.parquet")
    return path


def test_bm25_ranks_the_documents_of_the_logs_without_vectors(tmp_path):
    """Every shared word has one document frequency, 3 of 6, and all titles have two words, so that the number of shared
    words is the order: both (a, the positive, and b), then one (c and d) in the order of ids, and e and f none.
    """
    titles = {"a": "red shoe", "b": "red shoe", "d": "red hat", "c": "blue shoe", "e": "green lamp", "f": "hose pipe"}
    logs = logs_of(tmp_path / "logs", titles)
    write_labels(tmp_path / "labels", [("red shoe", "a", 4, POSITIVE, None, None)])
    given = {"query_embeddings": "", "document_embeddings": "", "ranked_by": "bm25", "logs": str(logs)}
    outcome = mine_negatives(arguments(tmp_path, **given, level=1))
    assert new_rows(tmp_path / "mined") == ["b", "c", "d"]
    assert outcome["search"]["kind"] == "bm25"
    assert outcome["queries_with_fewer"] == 1
    # Scores are shares of the best one: two shared words are 1, and one is half of it.
    assert {row["doc_id"]: row["score"] for row in read_rows(tmp_path / "mined")} == {
        "a": None, "b": 1.0, "c": 0.5, "d": 0.5
    }  # fmt: skip
    assert outcome["scores"]["positives"]["mean"] == 1.0
    with open_labels(tmp_path / "mined"):  # which checks every column
        pass
    mine_negatives(arguments(tmp_path, **given, level=1, per_query=2, output=str(tmp_path / "two")))
    assert new_rows(tmp_path / "two") == ["b", "c"]
    given |= {"exclude_same_text": True, "output": str(tmp_path / "unequal")}
    mine_negatives(arguments(tmp_path, **given, level=1))
    assert new_rows(tmp_path / "unequal") == ["c", "d"]


def test_the_negatives_of_the_table_are_replaced(folders):
    outcome = mine_negatives(arguments(folders, per_query=2, replace_negatives=True))
    assert [(row["doc_id"], row["level"]) for row in read_rows(folders / "mined")] == [("a", 4), ("b", 2), ("c", 2)]
    assert (outcome["mined"], outcome["met_again"]) == (2, 0)
    mine_negatives(arguments(folders, per_query=5, replace_negatives=True, output=str(folders / "more")))
    assert [row["doc_id"] for row in read_rows(folders / "more")] == ["a", "b", "c", "d", "e", "f"]


def test_dev_queries_keep_their_rows_and_nothing_is_mined_for_them(tmp_path):
    queries = [f"q{n}" for n in range(20)]
    rows = [(query, doc, level, POSITIVE, None, None) for query in queries for doc, level in (("a", 4), ("b", 0))]
    write_labels(tmp_path / "labels", rows)
    write_embeddings(tmp_path / "queries", queries, np.eye(3)[[0] * 20], tower="query", shard_rows=20)
    write_embeddings(tmp_path / "documents", ["a", "b", "c"], np.ones((3, 3)) - np.eye(3) / 2, tower="document")
    outcome = mine_negatives(arguments(tmp_path, level=1, dev_fraction=0.4, replace_negatives=True))
    dev = {query for query, bits in zip(queries, sha256_hashes(queries), strict=True) if bits < dev_threshold(0.4)}
    assert 0 < len(dev) < 20
    assert (outcome["dev_queries"], outcome["queries"]) == (len(dev), 20 - len(dev))
    assert outcome["queries_without_positive"] == 0
    found = {query: [] for query in queries}
    for row in read_rows(tmp_path / "mined"):
        found[row["query"]].append((row["doc_id"], row["level"]))
    for query, pairs in found.items():
        assert pairs == ([("a", 4), ("b", 0)] if query in dev else [("a", 4), ("b", 1), ("c", 1)])


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"query_embeddings": ""}, "are needed, except with --ranked-by bm25"),
        ({"ranked_by": "bm25"}, "takes neither"),
        ({"ranked_by": "bm25", "query_embeddings": "", "document_embeddings": ""}, "needs --logs"),
        (
            {"ranked_by": "bm25", "query_embeddings": "", "document_embeddings": "", "logs": "l", "sampling": "simans"},
            "compare cosines",
        ),
        ({"sampling": "simans", "simans_a": 0.0}, "a must be positive"),
        ({"sampling": "trisampler", "trisampler_candidates": 0}, "first_stage"),
        ({"temperature": 0.0}, "--temperature"),
        ({"dev_fraction": 1.0}, "--dev-fraction"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(folders, given_, message):
    with pytest.raises(ValueError, match=message):
        arguments(folders, **given_)


def test_the_samplers_of_the_arguments_are_those_of_the_library(folders):
    assert arguments(folders).sampler is None
    assert arguments(folders, sampling="simans", simans_a=0.5, simans_b=-1.0).sampler == SimAns(a=0.5, b=-1.0)
    trisampler = arguments(folders, sampling="trisampler", trisampler_scale=2.0, trisampler_candidates=9).sampler
    assert trisampler == TriSampler(first_stage=9, scale=2.0)
