"""data.report: every figure of a hand-made log and label table was worked out by hand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts, program
from crops_jax.errors import InputError
from data import report_figures as figures
from data.assign_levels import LABEL_SCHEMA
from data.report import ReportArguments, report
from data.report_examples import Way, draw_examples
from data.report_figures import Distribution, Gain, Part
from data.report_tables import open_tables
from data.tables import SCHEMAS, write_table
from tests.pages import browser, overflow, text_of, unclosed

ROOT = Path(__file__).parent.parent.parent
HOSTILE = "<script>alert(1)</script> & lamp"


def entry(source, level, *, score=None, via_query=None, gap_seconds=None, supporters=None):
    return {
        "source": source,
        "level": level,
        "score": score,
        "via_query": via_query,
        "gap_seconds": gap_seconds,
        "supporters": supporters,
    }


def label(query, doc_id, *entries, **row):
    won = max(entries, key=lambda found: found["level"]) if entries else {}
    made = {"query": query, "doc_id": doc_id, "level": won.get("level"), "source": won.get("source")}
    return {**made, "score": won.get("score"), "evidence": json.dumps(entries) if entries else None, **row}


LABELS = [
    label(
        "red lamp",
        "d0",
        entry("query_level", 5, score=0.9, via_query="lamp", gap_seconds=40.0, supporters=3),
        entry("query_level", 5, score=0.9, via_query="lamp red", gap_seconds=20.0, supporters=2),
        entry("search_log", 4, supporters=1),
    ),
    label(
        "red lamp",
        "d1",
        entry("shown_not_clicked", 3, supporters=1),
        entry("system_level", 4, score=0.7, gap_seconds=90.0, supporters=1),
    ),
    label(
        "red lamp",
        "d2",
        entry("filtered_before_ranking", 1, supporters=1),
        entry("query_level", 5, score=0.8, via_query="lamp", gap_seconds=90.0, supporters=1),
        entry("ranked_not_shown", 2, supporters=1),
        entry("system_level", 4, score=0.8, gap_seconds=1800.0, supporters=5),
    ),
    label("red lamp", "d3", entry("filtered_before_ranking", 1, supporters=1)),
    label("red lamp", "d8", entry("system_level", 4, score=0.65, gap_seconds=0.0, supporters=1)),
    label("blue chair", "d5", entry("search_log", 4, supporters=1)),
    label("blue chair", "d4", entry("shown_not_clicked", 3, supporters=1)),
    label("blue chair", "d9", entry("system_level", 4, score=0.61, gap_seconds=200.0, supporters=2)),
    label("vase", "d6", entry("query_level", 5, score=0.95, via_query="vases", gap_seconds=20.0, supporters=1)),
    label("vase", "k0", entry("knowledge_level", 4)),
    # Evidence that names nothing, as a table may have that somebody brings.
    label("clock", "k1", level=4, source="knowledge_level"),
    label("clock", "d99", level=3, source="model_mined"),
    label("never asked", "k2", entry("knowledge_level", 4)),
]


@pytest.fixture
def tables(at):
    """Red lamp is searched three times, blue chair twice, vase and clock once."""
    queries = ["Red  Lamp", "red lamp", "red lamp", "blue chair", "blue chair", "vase", "clock"]
    shown = {"stage": "shown", "clicked": False}
    return {
        "searches": [
            {"search_id": f"s{i}", "user_id": f"secret-{i % 3}", "query": query, "time": at(100 * i)}
            for i, query in enumerate(queries, 1)
        ],
        "candidates": [
            {"search_id": "s1", "doc_id": "d0", "stage": "shown", "clicked": True},
            {"search_id": "s1", "doc_id": "d1", **shown},
            {"search_id": "s1", "doc_id": "d2", "stage": "ranked_not_shown"},
            {"search_id": "s1", "doc_id": "d3", "stage": "filtered_before_ranking"},
            # Shown in another search of the same query: the best place counts.
            {"search_id": "s2", "doc_id": "d1", "stage": "ranked_not_shown"},
            {"search_id": "s2", "doc_id": "d2", "stage": "filtered_before_ranking"},
            {"search_id": "s4", "doc_id": "d4", **shown},
            # Watched long, and so taken for clicked.
            {"search_id": "s4", "doc_id": "d5", "stage": "shown", "clicked": False, "watch_seconds": 30.0},
            {"search_id": "s5", "doc_id": "d9", "stage": "filtered_before_ranking"},
            {"search_id": "s6", "doc_id": "d6", **shown},
            # Of another query: d8 is still never a candidate for red lamp.
            {"search_id": "s7", "doc_id": "d8", **shown},
        ],
        "knowledge_documents": [
            {"query": query, "doc_id": f"k{i}", "title": f"written {i}", "text": "", "model": "m", "prompt_sha256": "0"}
            for i, query in enumerate(["vase", "clock", "never asked"])
        ],
    }


@pytest.fixture
def write_labels(tmp_path):
    def write(rows, *, name="labels", files=1):
        folder = tmp_path / name
        folder.mkdir()
        if files == 1:
            pq.write_table(pa.Table.from_pylist(rows, LABEL_SCHEMA), folder / "labels.parquet")
        else:
            (folder / "labels").mkdir()
            for part in range(files):
                table = pa.Table.from_pylist(rows[part::files], LABEL_SCHEMA)
                pq.write_table(table, folder / "labels" / f"{part}.parquet")
        return folder

    return write


def mined_labels(path, rows, logs, *, arguments=(), sweep=None, **mined):
    """A label table with the manifest of data.mine."""
    with artifacts.output_directory(
        path,
        overwrite=False,
        program="data.mine",
        kind="labels",
        arguments=dict(arguments),
        inputs={"logs": logs},
        mined=mined,
    ) as out:
        pq.write_table(pa.Table.from_pylist(rows, LABEL_SCHEMA), out / "labels.parquet")
        if sweep is not None:
            (out / "alpha_sweep.json").write_text(json.dumps(sweep))
    return path


@pytest.fixture
def opened(write_logs, write_labels, tables):
    with open_tables(write_labels(LABELS), write_logs(**tables), until=None, long_watch_seconds=30.0) as made:
        yield made


def page_of(tmp_path, labels, logs, **arguments):
    output = tmp_path / "report.html"
    outcome = report(ReportArguments(labels=str(labels), logs=str(logs), output=str(output), **arguments))
    return outcome, output.read_text()


def test_gains_are_those_worked_out_by_hand(opened):
    assert figures.gains(opened) == {
        "search_log": Gain(2, 2, 2, 1, (2, 0, 0, 0, 0)),
        "query_level": Gain(2, 3, 3, 1, (1, 1, 1, 0, 0)),
        "system_level": Gain(2, 4, 4, 3, (0, 1, 1, 1, 1)),
        "knowledge_level": Gain(3, 3, 3, 3, (0, 0, 0, 0, 3)),
    }
    assert list(figures.gains(opened)) == ["search_log", "query_level", "system_level", "knowledge_level"]
    # d0 is a click, k0 to k2 are no documents of the corpus, d2 counts once.
    assert figures.beyond_log(opened) == Gain(3, 5, 5, 4, (0, 2, 1, 1, 1))


def test_what_was_never_shown_is_ranked_filtered_or_no_candidate():
    gain = Gain(1, 10, 10, 10, (1, 2, 3, 4, 0))
    assert (gain.not_clicked, gain.never_shown, gain.never_candidate) == (9, 7, 0)
    assert gain.share("never_shown") == 0.7
    unknown = Gain(1, 10, 10, 10, None)
    assert (unknown.never_shown, unknown.share("never_shown")) == (None, None)
    assert Gain(0, 0, 0, 0, (0, 0, 0, 0, 0)).share("never_shown") is None


def test_overlaps_are_those_worked_out_by_hand(opened):
    assert figures.overlaps(opened) == {
        ("search_log", "search_log"): 2,
        ("query_level", "query_level"): 3,
        ("system_level", "system_level"): 4,
        ("knowledge_level", "knowledge_level"): 3,
        ("search_log", "query_level"): 1,
        ("query_level", "search_log"): 1,
        ("query_level", "system_level"): 1,
        ("system_level", "query_level"): 1,
    }


def test_distributions_are_those_worked_out_by_hand(opened):
    assert figures.positives_per_query(opened) == {
        "search_log": Distribution(2, 0, 1, 1, 1, [("1", 2)]),
        "query_level": Distribution(2, 0, 1, 2, 2, [("1", 1), ("2", 1)]),
        "system_level": Distribution(2, 0, 1, 3, 3, [("1", 1), ("2", 0), ("3 to 5", 1)]),
        "knowledge_level": Distribution(3, 0, 1, 1, 1, [("1", 3)]),
    }
    assert figures.supporters(opened) == {
        "search_log": Distribution(2, 0, 1, 1, 1, [("1", 2)]),
        "query_level": Distribution(3, 0, 1, 3, 3, [("1", 2), ("2", 0), ("3 to 4", 1)]),
        "system_level": Distribution(4, 0, 1, 5, 5, [("1", 2), ("2", 1), ("3 to 4", 0), ("5 to 9", 1)]),
    }
    gaps = figures.gaps(opened)
    assert list(gaps) == ["query_level", "system_level"]
    assert gaps["query_level"][:5] == (3, 0, 20.0, 90.0, 90.0)
    # The border belongs to the bin below it.
    assert [found for found in gaps["query_level"].bins if found[1]] == [("10 to 20 s", 2), ("80 to 90 s", 1)]
    assert [found for found in gaps["system_level"].bins if found[1]] == [("0 to 200 s", 3), ("1600 to 1800 s", 1)]
    assert len(gaps["system_level"].bins) == 9


def test_which_queries_gained_is_what_was_worked_out_by_hand(opened):
    assert figures.parts(opened) == {
        "head": Part(1, 3, {"search_log": (1, 1), "query_level": (1, 2), "system_level": (1, 3)}),
        "torso": Part(1, 2, {"search_log": (1, 1), "system_level": (1, 1)}),
        "tail": Part(2, 2, {"query_level": (1, 1), "knowledge_level": (2, 2)}),
        "not searched": Part(1, 0, {"knowledge_level": (1, 1)}),
    }
    without, others = figures.without_click(opened)
    assert without == Part(2, 2, {"query_level": (1, 1), "knowledge_level": (2, 2), "together": (2, 3)})
    assert others == Part(
        2, 5, {"search_log": (2, 2), "query_level": (1, 2), "system_level": (2, 4), "together": (2, 4)}
    )


def test_levels_and_what_is_not_known_are_counted(opened):
    assert figures.levels(opened) == {
        "search_log": {4: 1},
        "query_level": {5: 3},
        "system_level": {4: 3},
        "knowledge_level": {4: 3},
        "shown_not_clicked": {3: 1},
        "filtered_before_ranking": {1: 1},
        "model_mined": {3: 1},
    }
    assert figures.unknown_documents(opened) == 1
    assert figures.without_evidence(opened) == 1
    assert figures.writers(opened) == {"m": 3}


def test_examples_carry_their_whole_chain(opened):
    drawn = {example.doc_id: example for example in draw_examples(opened, "query_level", number=9, seed=0)}
    assert set(drawn) == {"d0", "d2", "d6"}
    assert drawn["d0"].title == "title 0"
    assert drawn["d0"].searches == 3
    assert drawn["d0"].place == "clicked"
    assert drawn["d0"].ways == [
        Way("query_level", "lamp red", 20.0, 2, 0.9),
        Way("query_level", "lamp", 40.0, 3, 0.9),
        Way("search_log", None, None, 1, None),
    ]
    assert drawn["d2"].place == "ranked_not_shown"
    assert drawn["d0"].ways[0].facts() == ["20 s apart", "2 users", "theta 0.900"]
    # What was clicked anyway comes last.
    assert list(drawn)[-1] == "d0"
    (written,) = [one for one in draw_examples(opened, "knowledge_level", number=9, seed=0) if one.doc_id == "k2"]
    assert (written.title, written.model, written.searches) == ("written 2", "m", None)


def test_examples_are_drawn_by_seed(opened):
    def drawn(seed):
        return [one.doc_id for one in draw_examples(opened, "system_level", number=2, seed=seed)]

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(10)}) > 1


def test_equal_frequencies_are_not_parted_and_what_was_searched_once_is_tail(write_logs, write_labels, at):
    searches = [{"search_id": f"s{i}", "user_id": "u", "query": f"q{i // 2}", "time": at(i)} for i in range(8)]
    logs = write_logs(
        searches=searches, candidates=[{"search_id": "s0", "doc_id": "d0", "stage": "shown", "clicked": True}]
    )
    labels = write_labels([label("q0", "d0", entry("search_log", 4, supporters=1))])
    with open_tables(labels, logs, until=None, long_watch_seconds=30.0) as tables:
        assert figures.parts(tables) == {"head": Part(4, 8, {"search_log": (1, 1)})}


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
        "found 5 positives in the corpus, for 3 queries. 3 of them (60.0 %) were never shown",
        "No manifest says how these labels were mined",
        "Knowledge-level positives written by m, which no search could have shown: 3.",
        "count for the source in their row alone: 1.",
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
        "judgements not asked for",
        "written by data.mine",
    ):
        assert said in text, said
    assert "No manifest" not in text
    assert outcome["skipped"] == {"system_level": "table feed_views is not in the logs"}
    manifest = json.loads(re.search(r'id="manifest">(.*?)</script>', html, re.S)[1])
    assert manifest["program"] == "data.report"
    assert manifest["inputs"]["labels"]["manifest"]["program"] == "data.mine"


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
        "What was shown for a query is not known",
        "An overlap needs positives of two perspectives; there are 1.",
        "nobody can say how often a query was searched",
        "nobody can say which queries had no click",
        "No evidence tells how many users",
        "No evidence tells a time",
        "do not say which discriminator",
        "There is no sweep of alpha",
        "judged relevant → title 0",
    ):
        assert said in text, said


def test_labels_without_a_positive_make_a_page(tmp_path, write_logs, write_labels, tables):
    labels = write_labels([label("red lamp", "d3", entry("filtered_before_ranking", 1, supporters=1))])
    outcome, html = page_of(tmp_path, labels, write_logs(**tables))
    assert outcome["perspectives"] == {}
    assert outcome["beyond_search_log"]["positives"] == 0
    assert "no perspective gained anything" in text_of(html)
    assert "There are no positives to show." in text_of(html)


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
    assert "No evidence tells a time" in text_of(html)


def test_texts_are_escaped_wherever_they_stand(tmp_path, write_logs, write_labels, tables):
    tables["documents"] = [{"doc_id": f"d{i}", "title": HOSTILE if i else f"{HOSTILE} {'x' * 300}"} for i in range(10)]
    tables["knowledge_documents"][0]["model"] = HOSTILE
    rows = [
        label(
            HOSTILE.lower(),
            doc_id,
            entry("query_level", 5, score=0.9, via_query=HOSTILE, gap_seconds=1.0, supporters=1),
            entry(f"{HOSTILE}'", 4),
        )
        for doc_id in ("d0", "d1", "<img src=x>")
    ]
    rows.append(label("vase", "k0", entry("knowledge_level", 4)))
    outcome, html = page_of(tmp_path, write_labels(rows), write_logs(**tables))
    assert f"{HOSTILE}'" in outcome["perspectives"]
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; lamp" in html
    assert "x" * 201 not in html


def test_the_page_is_self_contained_and_its_tables_and_pictures_can_be_read_aloud(
    tmp_path, write_logs, write_labels, tables
):
    _, html = page_of(tmp_path, write_labels(LABELS), write_logs(**tables))
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", html)
    tables_of_page = re.findall(r"<table.*?</table>", html, re.S)
    assert tables_of_page
    for table in tables_of_page:
        assert "<caption>" in table
        assert re.search(r'<th scope="row"', table)
        # Lists of a name and a value need no header of columns.
        columns = len(re.findall(r"<t[dh][ >]", re.findall(r"<tr.*?</tr>", table, re.S)[-1]))
        assert columns == 2 or len(re.findall(r'<th scope="col"', table)) == columns
    pictures = re.findall(r"<svg[^>]*>", html)
    assert len(pictures) > 8
    for picture in pictures:
        assert re.search(r'role="img" aria-label="[^"]+\d', picture)
    assert unclosed(html) == []


def test_the_same_inputs_give_the_same_page(tmp_path, write_logs, write_labels, tables):
    labels, logs = write_labels(LABELS), write_logs(**tables)
    _, first = page_of(tmp_path, labels, logs)
    _, second = page_of(tmp_path, labels, logs, overwrite=True)
    assert first == second
    with pytest.raises(InputError, match="--overwrite"):
        page_of(tmp_path, labels, logs)


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


def test_on_the_command_line(tmp_path, write_logs, write_labels, tables):
    labels, logs = write_labels(LABELS), write_logs(**tables)
    flags = ["--labels", str(labels), "--logs", str(logs), "--output", str(tmp_path / "r.html")]
    command = [sys.executable, "-m", "data.report", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["perspectives"]["query_level"]["never_shown_share"] == 0.333333
    assert re.search(r"query level +2 +3 +3 +2 \(66\.7 %\) +1 \(33\.3 %\) +0 \(0 %\)", done.stderr)
    with pytest.raises(SystemExit) as refused:
        program.run(report, example="", arguments=flags)
    assert refused.value.code == 2


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_in_a_browser(tmp_path, write_logs, write_labels, tables, width):
    tables["documents"] = [{"doc_id": f"d{i}", "title": "Unbreakable" * 30} for i in range(10)]
    _, html = page_of(tmp_path, write_labels(LABELS), write_logs(**tables))
    assert overflow(html, width=width, folder=tmp_path) == (0, 0)
