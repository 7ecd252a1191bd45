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
]
TRUTH = [{"query": "red lamp", "doc_id": doc_id, "grade": 2.0, "shown": False} for doc_id in ("d1", "d5")]


def test_precision_by_hand(write_logs, write_labels, tables):
    """d1 is relevant, d0 and d2 are not; k0 is no document of the logs, and the truth knows red lamp alone."""
    logs = write_logs(**tables)
    with open_tables(write_labels(ROWS), logs, until=None, long_watch_seconds=30.0) as opened:
        assert precision_by_truth(opened, logs) is None
        write_truth(logs, pa.Table.from_pylist(TRUTH))
        assert precision_by_truth(opened, logs) == {
            "query_level": {"pairs": 1, "relevant": 1, "value": 1.0},
            "search_log": {"pairs": 1, "relevant": 0, "value": 0.0},
            "system_level": {"pairs": 2, "relevant": 1, "value": 0.5},
        }


def test_the_page_and_the_outcome_show_it(tmp_path, write_logs, write_labels, tables):
    logs = write_logs(**tables)
    labels = write_labels(ROWS)
    outcome, html = page_of(tmp_path, labels, logs)
    assert "precision_by_truth" not in outcome
    assert "by the truth" not in text_of(html)
    write_truth(logs, pa.Table.from_pylist(TRUTH))
    outcome, html = page_of(tmp_path, labels, logs, overwrite=True)
    assert outcome["precision_by_truth"]["system_level"] == {"pairs": 2, "relevant": 1, "value": 0.5}
    assert "system level 2 1 50.0 %" in text_of(html)
