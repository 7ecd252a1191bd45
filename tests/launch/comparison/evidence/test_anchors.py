"""The anchors of the loss, by hand."""

import json

import pytest

from launch.comparison.evidence.anchors import anchors_per_query, positives_per_query, share_below_positives


def line(step: int, *anchors: int) -> str:
    return json.dumps({"step": step, **{f"anchors_level_{n}": count for n, count in enumerate(anchors, 1)}}) + "\n"


def test_anchors_are_counted_for_a_query_of_a_step(tmp_path):
    """20 steps of 4 queries are 80 queries."""
    text = line(10, 40, 20, 0, 60, 4) + line(20, 40, 0, 20, 60, 4) + '{"step": 20, "dev_recall_at_10": 0.5}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    found = anchors_per_query(tmp_path, 4)
    assert found == {f"anchors_per_query_level_{n}": value for n, value in enumerate((1.0, 0.25, 0.25, 1.5, 0.1), 1)}
    assert positives_per_query(found) == pytest.approx(1.6)
    assert share_below_positives(found) == pytest.approx(1.5 / 3.1)


def test_without_anchors_nothing_is_known(tmp_path):
    assert anchors_per_query(tmp_path, 4) == {}
    assert positives_per_query({}) is None
    assert share_below_positives({}) is None
    assert share_below_positives({f"anchors_per_query_level_{n}": 0.0 for n in range(1, 6)}) is None
