"""What the page says, by what the labels and their manifest tell."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from data.labels.assign_levels import LABEL_SCHEMA
from data.tables import SCHEMAS, write_table
from tests.data.mining_report.labels import LABELS, entry, label, mined_labels, page_of
from tests.pages import text_of


def test_only_what_mining_read_counts_as_shown(tmp_path, write_logs, tables, at):
    logs = write_logs(**tables)
    rows = [label("red lamp", "d1", entry("system_level", 4, score=0.7, gap_seconds=1.0, supporters=1))]
    for until, never in (("2024-05-31T00:01:40", None), ("2024-05-31T00:01:41", 0)):
        labels = mined_labels(tmp_path / f"labels-{never}", rows, logs, arguments={"until": until})
        outcome, _ = page_of(tmp_path, labels, logs, overwrite=True)
        assert outcome["perspectives"]["system_level"]["never_shown"] == (1 if never is None else never)


def test_the_page_says_everything_with_its_numbers(tmp_path, write_logs, write_labels, tables):
    outcome, html = page_of(tmp_path, write_labels(LABELS, files=3), write_logs(**tables))
    assert outcome["rows"] == 13
    assert outcome["perspectives"]["system_level"] == {
        "queries": 2,
        "positives": 4,
        "documents": 4,
        "only_here": 3,
        "not_clicked": 4,
        "not_clicked_share": 1.0,
        "never_shown": 3,
        "never_shown_share": 0.75,
        "never_candidate": 1,
        "never_candidate_share": 0.25,
    }
    assert outcome["levels"] == {"5": 3, "4": 7, "3": 2, "1": 1}
    text = text_of(html)
    for said in (
        "It is not known how many of the positives are relevant: no judgement and no truth tells.",
        "Of the positives that the search log does not have, 60.0 % were never shown for their query in any search, "
        "and 20.0 % were not even a candidate.",
        "They are 3 of 5, for 3 queries.",
        "No manifest says how these labels were mined",
        "Knowledge-level positives written by m, which no search could have shown: 3.",
        "are counted for the source in their row alone: 1.",
        "Labels of documents that the logs do not hold: 1.",
        "system level 2 4 4 4 100 % 3 75.0 % 1 25.0 % 3 75.0 %",
        "head 1 3 1 1 query 2 1 query 3 1 query 0 0 queries",
        "without any click 2 2 0 0 queries 1 1 query 0 0 queries 2 2 queries 3 2 queries",
        "rephrased as lamp red (20 s apart, 2 users, theta 0.900)",
        "5 rephrased query",
    ):
        assert said in text, said
    assert "secret-" not in html


def test_a_manifest_tells_of_discriminator_sweep_skipped_and_quarantined(tmp_path, write_logs, tables):
    logs = write_logs(**tables)
    labels = mined_labels(
        tmp_path / "labels",
        LABELS,
        logs,
        arguments={"alpha": 0.6, "window_seconds": 90, "until": None, "perspectives": None},
        sweep={
            "alpha": 0.6,
            "query_level": [{"alpha": 0.5, "passing": 77, "share": 0.7}, {"alpha": 0.6, "passing": 66, "share": 0.6}],
            "system_level": [],
        },
        skipped={"system_level": "table feed_views is not in the logs"},
        discriminator={"kind": "lexical", "source": "clicks", "pairs": 1234, "ece_before": 0.2, "ece_after": 0.0125},
        query_level={"candidates": 88, "passing": 66, "reformulations": 99},
        quarantined={"candidates": {"stage: value is no stage": 17}},
    )
    outcome, html = page_of(tmp_path, labels, logs)
    text = text_of(html)
    for said in (
        "System level was skipped in mining: table feed_views is not in the logs.",
        "Kind lexical Fitted on clicks Pairs 1,234 ECE before calibration 0.2000 ECE after calibration 0.0125",
        "alpha 0.6, used 66",
        "query level reformulations 99 query level candidates that the discriminator scored, distinct pairs 88",
        "candidates stage: value is no stage 17",
        "window seconds 90",
        "judgements not requested",
        "written by data.mine",
    ):
        assert said in text, said
    assert "No manifest" not in text
    assert outcome["skipped"] == {"system_level": "table feed_views is not in the logs"}
    manifest = json.loads(re.search(r'id="manifest">(.*?)</script>', html, re.S)[1])
    assert manifest["program"] == "data.report"
    assert manifest["inputs"]["labels"]["manifest"]["program"] == "data.mine"


def test_what_theta_decided_wrongly_comes_first(tmp_path, write_logs, tables):
    def measured(pairs, judged, value):
        interval = (None, None) if value is None else (value - 0.05, value + 0.05)
        return {"pairs": pairs, "judged": judged, "value": value, "low": interval[0], "high": interval[1], "queries": 9}

    precision = {
        "judged_by": "judgements of split dev",
        "relevant_grade": 2.0,
        "sources": {
            "search_log": {"before": measured(500, 100, 0.81)},
            "shown_not_clicked": {"before": measured(900, 300, 0.4)},
            "query_level": {"before": measured(80, 20, 0.5), "after": measured(40, 10, 0.9)},
            "system_level": {"before": measured(3000, 200, 0.25), "after": measured(70, 10, 0.45)},
            "empty_level": {"before": measured(4, 0, None), "after": measured(1, 0, None)},
        },
    }
    discriminator = {"kind": "cross_encoder", "random_pairs_passing": 0.2, "populations": {"pool": 10, "feed": 5}}
    logs = write_logs(**tables)
    for name, passing in (("trusted", 0.02), ("doubted", 0.2)):
        labels = mined_labels(
            tmp_path / name,
            LABELS,
            logs,
            discriminator={**discriminator, "random_pairs_passing": passing},
            precision=precision,
        )
        outcome, html = page_of(tmp_path, labels, logs, overwrite=True)
        assert outcome["precision"] == precision
        text = text_of(html)
        doubt = "The relevance discriminator (theta) passes 20.0% of random query-document pairs, more than 2%"
        assert (doubt in text) == (name == "doubted")
    assert "Of the judged positives of system level, 45% are relevant (40% to 50%; 10 pairs)." in text
    for trusted in ("search log", "query level", "shown not clicked", "empty level"):
        assert f"Of the judged positives of {trusted}" not in text
    assert text.index(doubt) < text.index("Precision of each source")
    assert re.search(r"system level 3,000 200 25\.0 % ?20\.0 % to 30\.0 % 70 10 45\.0 %", text)
    assert "(grade 2 or higher), with its 95 % interval over queries, by judgements of split dev" in text
    assert "Pairs by origin feed 5, pool 10" in text


def test_labels_made_from_labels_tell_of_their_mining(tmp_path, write_logs, tables):
    logs = write_logs(**tables)
    mined = mined_labels(tmp_path / "mined", LABELS[:3], logs, skipped={"knowledge_level": "no such table"})
    with artifacts.output_directory(
        tmp_path / "labels",
        overwrite=False,
        program="launch.mine_negatives",
        kind="labels",
        arguments={"level": 2},
        inputs={"labels": mined},
        mined={
            "mined": 1,
            "by_source": {"model_mined": 1},
            "false_negatives": {"rate": 0.25, "low": 0.1, "high": 0.5, "judged": 8, "relevant": 2},
        },
    ) as out:
        rows = [*LABELS[:3], label("red lamp", "d7", level=2, source="model_mined", score=0.4)]
        pq.write_table(pa.Table.from_pylist(rows, LABEL_SCHEMA), out / "labels.parquet")
    outcome, html = page_of(tmp_path, tmp_path / "labels", logs)
    assert outcome["skipped"] == {"knowledge_level": "no such table"}
    assert "model_mined" not in outcome["perspectives"]
    assert "model mined 0 0 1" in text_of(html)
    assert "relevant after all 0.2500 (0.1000 to 0.5000); 8 were judged" in text_of(html)


def test_documents_that_were_written_elsewhere_have_their_titles(tmp_path, write_logs, tables):
    written = tables.pop("knowledge_documents")
    logs, docs = write_logs(**tables), tmp_path / "docs"
    docs.mkdir()
    write_table(docs, "knowledge_documents", pa.Table.from_pylist(written, SCHEMAS["knowledge_documents"].arrow))
    with artifacts.output_directory(
        tmp_path / "labels",
        overwrite=False,
        program="data.mine",
        kind="labels",
        arguments={},
        inputs={"logs": logs, "knowledge_documents": docs},
        mined={},
    ) as out:
        pq.write_table(pa.Table.from_pylist(LABELS, LABEL_SCHEMA), out / "labels.parquet")
    _, html = page_of(tmp_path, tmp_path / "labels", logs)
    assert "name it with --knowledge-documents" in text_of(html)
    assert "document k2, which the logs do not hold" in text_of(html)
    _, html = page_of(tmp_path, tmp_path / "labels", logs, overwrite=True, knowledge_documents=str(docs))
    assert "--knowledge-documents" not in text_of(html)
    assert "written 2 by m" in text_of(html)
    other = tmp_path / "other"
    other.mkdir()
    write_table(other, "knowledge_documents", pa.Table.from_pylist(written[:1], SCHEMAS["knowledge_documents"].arrow))
    with pytest.raises(InputError, match="other written documents"):
        page_of(tmp_path, tmp_path / "labels", logs, overwrite=True, knowledge_documents=str(other))


def test_judgements_without_a_log_make_a_page_that_says_what_is_missing(tmp_path, write_logs, write_labels):
    logs = write_logs(judgements=[{"query": "lamp", "doc_id": "d0", "grade": 1.0}])
    labels = write_labels(
        [label("lamp", "d0", entry("judgements", 4)), label("lamp", "d1", entry("judgements", 3))],
    )
    outcome, html = page_of(tmp_path, labels, logs)
    assert outcome["perspectives"] == {
        "judgements": {
            "queries": 1,
            "positives": 1,
            "documents": 1,
            "only_here": 1,
            **dict.fromkeys(["not_clicked", "never_shown", "never_candidate"]),
            **dict.fromkeys(["not_clicked_share", "never_shown_share", "never_candidate_share"]),
        }
    }
    text = text_of(html)
    for said in (
        "It is not known what was shown for a query: the logs hold no candidates.",
        "An overlap needs positives of two perspectives; the labels have positives of 1.",
        "it is not known how often a query was searched",
        "it is not known which queries had no click",
        "No evidence records how many users",
        "No evidence records a time",
        "do not say which discriminator",
        "The labels have no sweep of alpha",
        "judged relevant → title 0",
    ):
        assert said in text, said


def test_labels_without_a_positive_make_a_page(tmp_path, write_logs, write_labels, tables):
    labels = write_labels([label("red lamp", "d3", entry("filtered_before_ranking", 1, supporters=1))])
    outcome, html = page_of(tmp_path, labels, write_logs(**tables))
    assert outcome["perspectives"] == {}
    assert outcome["beyond_search_log"]["positives"] == 0
    assert "no perspective gained a positive" in text_of(html)
    assert "The labels hold no positives to show." in text_of(html)
