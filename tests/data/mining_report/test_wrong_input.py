"""Evidence of other writers is passed over; labels, logs and arguments that do not fit are refused."""

import re

import pytest

from crops_jax.errors import InputError
from data.report import ReportArguments, report
from tests.data.mining_report.labels import LABELS, label, mined_labels, page_of
from tests.pages import text_of


def test_foreign_evidence_is_read_as_none(tmp_path, write_logs, write_labels, tables):
    foreign = [
        "{}",
        "[]",
        "null",
        "7",
        '"text"',
        "[1, [2]]",
        '[{"source": "query_level"}]',
        '[{"level": "x"}]',
        "[null]",
    ]
    rows = [
        label("red lamp", f"d{at}", level=5, source="query_level", score=None, evidence=evidence)
        for at, evidence in enumerate(foreign)
    ]
    outcome, html = page_of(tmp_path, write_labels(rows), write_logs(**tables))
    assert outcome["perspectives"]["query_level"]["positives"] == len(foreign)
    assert f"in their row alone: {len(foreign)}." in text_of(html)


def test_numbers_that_are_none_are_left_out(tmp_path, write_logs, write_labels, tables):
    evidence = '[{"source": "query_level", "level": 5, "gap_seconds": 1e999, "supporters": "many", "score": {}}]'
    labels = write_labels([label("red lamp", "d2", level=5, source="query_level", score=None, evidence=evidence)])
    _, html = page_of(tmp_path, labels, write_logs(**tables))
    assert "No evidence records a time" in text_of(html)


def test_other_logs_are_refused(tmp_path, write_logs, tables):
    labels = mined_labels(tmp_path / "labels", LABELS, write_logs(**tables))
    other = write_logs("other", **{**tables, "documents": [{"doc_id": f"d{i}", "title": "x"} for i in range(10)]})
    with pytest.raises(InputError, match="mined from other log tables"):
        page_of(tmp_path, labels, other)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [("{", "not JSON"), ("[]", "not a sweep"), ('{"alpha": "high"}', "not a sweep"), ('{"query_level": [1]}', "sweep")],
)
def test_a_broken_sweep_is_refused(tmp_path, write_logs, write_labels, tables, sweep, said):
    labels = write_labels(LABELS)
    (labels / "alpha_sweep.json").write_text(sweep)
    with pytest.raises(InputError, match=said):
        page_of(tmp_path, labels, write_logs(**tables))


def test_wrong_input_is_refused(tmp_path, write_logs, write_labels, tables):
    labels, logs = write_labels(LABELS), write_logs(**tables)
    for arguments, said in (
        ({"examples": -1}, "--examples -1"),
        ({"seed": -1}, "--seed -1"),
        ({"memory_limit": "much"}, "--memory-limit 'much' is no size"),
        ({"output": str(labels / "report.html")}, "lies in --labels"),
        ({"output": str(tmp_path)}, "is a directory"),
        ({"labels": str(logs)}, "neither labels.parquet nor"),
        ({"logs": str(labels)}, "table documents is missing"),
        ({"labels": str(tmp_path / "nothing")}, "no such directory"),
    ):
        given = {"labels": str(labels), "logs": str(logs), "output": str(tmp_path / "r.html"), **arguments}
        with pytest.raises(InputError, match=re.escape(said)):
            report(ReportArguments(**given))
        assert not (tmp_path / "r.html").exists()
    rows = [label("red lamp", f"d{i}", level=4, source=f"source {i}") for i in range(60)]
    with pytest.raises(InputError, match="names 60 sources"):
        page_of(tmp_path, write_labels(rows, name="many"), logs)
