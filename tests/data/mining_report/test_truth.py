import pyarrow as pa

from data.mining_report.tables import open_tables
from data.mining_report.truth import precision_by_truth
from data.tables.truth import write_truth
from tests.data.mining_report.labels import entry, label, page_of
from tests.pages import text_of

ROWS = [
    label("red lamp", "d0", entry("search_log", 4)),
    label("red lamp", "d1", entry("system_level", 4, score=0.7), entry("query_level", 5, score=0.9)),
    label("red lamp", "d2", entry("system_level", 4, score=0.7)),
    label("red lamp", "k0", entry("knowledge_level", 4)),
    label("never searched", "d0", entry("search_log", 4)),
    label("red lamp", "d5", entry("shown_not_clicked", 3)),
    label("red lamp", "d6", entry("shown_not_clicked", 3)),
    label("blue lamp", "d5", entry("shown_not_clicked", 3)),
]
TRUTH = [
    {"query": query, "doc_id": doc_id, "grade": 2.0, "shown": False}
    for query, doc_id in (("red lamp", "d1"), ("red lamp", "d5"), ("blue lamp", "d1"))
]


def test_precision_by_hand(write_logs, write_labels, tables):
    """d1 is relevant, d0 and d2 are not; k0 is no document of the logs, and the truth does not know all queries."""
    logs = write_logs(**tables)
    with open_tables(write_labels(ROWS), logs, until=None, long_watch_seconds=30.0) as opened:
        assert precision_by_truth(opened, logs) is None
        write_truth(logs, pa.Table.from_pylist(TRUTH))
        assert precision_by_truth(opened, logs) == {
            "query_level": {"pairs": 1, "relevant": 1, "value": 1.0, "low": 1.0, "high": 1.0, "queries": 1},
            "search_log": {"pairs": 1, "relevant": 0, "value": 0.0, "low": 0.0, "high": 0.0, "queries": 1},
            # Of two queries, a sample has both (1 of 3 relevant), the first alone (1 of 2) or the second alone (none).
            "shown_not_clicked": {"pairs": 3, "relevant": 1, "value": 0.3333, "low": 0.0, "high": 0.5, "queries": 2},
            "system_level": {"pairs": 2, "relevant": 1, "value": 0.5, "low": 0.5, "high": 0.5, "queries": 1},
        }


def test_the_page_and_the_outcome_show_it(tmp_path, write_logs, write_labels, tables):
    logs = write_logs(**tables)
    labels = write_labels(ROWS)
    outcome, html = page_of(tmp_path, labels, logs)
    assert "precision_by_truth" not in outcome
    assert "by the truth" not in text_of(html)
    write_truth(logs, pa.Table.from_pylist(TRUTH))
    outcome, html = page_of(tmp_path, labels, logs, overwrite=True)
    assert outcome["precision_by_truth"]["system_level"]["value"] == 0.5
    text = text_of(html)
    assert "system level 2 1 50.0 % 50.0 % to 50.0 %" in text
    # What is not precise stands before the figures, but a hard negative that is relevant is no positive.
    assert text.index("By the truth, of the positives of system level, 50% are relevant") < text.index(
        "Found by no other"
    )
    assert "of the positives of shown not clicked" not in text
    assert "of the positives of query level" not in text
