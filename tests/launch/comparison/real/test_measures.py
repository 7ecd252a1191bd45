"""The values of a cell of a real data set, by hand."""

import pyarrow as pa
import pyarrow.parquet as pq

from launch.comparison.real.measures import LABELS, meanings, real_values
from launch.evaluation.files import PER_QUERY

ROWS = [
    ("encoder", "ct", "all", "red shoe", "recall@100", 0.5, True),
    ("encoder", "ct", "all", "blue lamp", "recall@100", 0.25, False),
    ("encoder", "ct", "unseen", "blue lamp", "recall@100", 0.125, False),
    ("encoder", "qr", "all", "red shoe", "recall@100", 1.0, True),
    ("encoder", "judgements", "all", "red shoe", "ndcg@10", 0.75, True),
    ("encoder", "judgements", "all", "red shoe", "ndcg@4", 0.7, True),
    ("bm25", "ct", "all", "red shoe", "ndcg@10", 0.3, True),
]


def test_values_by_hand(tmp_path):
    names = PER_QUERY.names
    rows = [dict(zip(names, row, strict=True)) for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows, schema=PER_QUERY), tmp_path / "per_query.parquet")
    assert real_values(tmp_path, ranked_by="encoder") == {
        "clicked_recall@100": {"red shoe": 0.5, "blue lamp": 0.25},
        "unseen_recall@100": {"blue lamp": 0.25},
        "ndcg@10": {"red shoe": 0.75},
    }
    assert real_values(tmp_path, ranked_by="bm25") == {"clicked_ndcg@10": {"red shoe": 0.3}}


def test_every_word_of_a_label_has_a_meaning():
    for metric, label in LABELS.items():
        assert meanings({metric: label}), label
    assert list(meanings({"ndcg@10": LABELS["ndcg@10"]})) == ["judged"]
