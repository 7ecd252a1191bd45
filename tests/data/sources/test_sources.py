"""Adapters: hand-made folders in the layout of each source, and the real ones where they are."""

import datetime
import gzip
import importlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.conversion.acceptance import drop_refused
from tests.data.sources.conversions import converted, rows
from tests.paths import SHARED_DATA


def write(folder, **tables):
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), folder / f"{name}.parquet")
    return folder


def at(*clock):
    return datetime.datetime(2011, 9, 1, *clock, tzinfo=datetime.UTC)


def bestbuy(folder):
    times = [
        at(9).replace(tzinfo=None),
        at(9).replace(tzinfo=None),
        at(9, 1).replace(tzinfo=None),
        at(8).replace(tzinfo=None),
    ]
    return write(
        folder,
        clicks={
            "user": ["u1", "u1", "u1", "u2"],
            "sku": ["1", "2", "1", "9"],
            "category": ["c"] * 4,
            "query": ["Halo", "Halo", "halo 3", "gears"],
            "click_time": pa.array(times, pa.timestamp("ms")),
            "query_time": pa.array(times, pa.timestamp("ms")),
        },
        catalog={
            "sku": ["1", "2"],
            "name": ["Halo 3", "Halo Wars"],
            "short_description": ["Shoot", None],
            "long_description": ["Shoot more", "Command"],
            "sale_price": [1.0, 2.0],
        },
    )


def test_bestbuy_search_is_a_user_query_and_time(tmp_path):
    logs, outcome = converted("bestbuy", bestbuy(tmp_path / "raw"), tmp_path)
    assert logs.names == {"documents", "searches", "candidates"}
    assert rows(logs, "documents") == [
        {"doc_id": "1", "title": "Halo 3", "text": "Shoot Shoot more"},
        {"doc_id": "2", "title": "Halo Wars", "text": "Command"},
    ]
    assert rows(logs, "searches") == [
        {"search_id": "search1", "user_id": "u1", "query": "Halo", "time": at(9)},
        {"search_id": "search2", "user_id": "u1", "query": "halo 3", "time": at(9, 1)},
        {"search_id": "search3", "user_id": "u2", "query": "gears", "time": at(8)},
    ]
    assert rows(logs, "candidates") == [
        {"search_id": search_id, "doc_id": doc_id, "stage": "shown", "clicked": True}
        for search_id, doc_id in (("search1", "1"), ("search1", "2"), ("search2", "1"))
    ]
    assert outcome["tables"] == {"documents": 2, "searches": 3, "candidates": 3}
    assert outcome["dropped"] == {"candidates": {"doc_id not in documents": 1}}


def trec_session(folder):
    return write(
        folder,
        queries={
            "session_id": [1, 1, 2, 3],
            "topic_id": [7, 7, 7, 8],
            "query_index": [1, 2, 1, 1],
            "query_text": ["tax", "Tax  code", "tax law", "TAX code"],
            "start_s": [1.5, 60.25, 3.0, 4.0],
            "is_current": [False, True, True, True],
        },
        impressions={
            "session_id": [1, 1, 1],
            "query_index": [1, 1, 1],
            "rank": [1, 2, 3],
            "doc_id": ["a", "b", "a"],
            "url": [""] * 3,
            "title": ["A", "B", "A again"],
            "snippet": ["first", "second", "third"],
        },
        clicks={
            "session_id": [1, 1, 1],
            "query_index": [1, 1, 1],
            "rank": [2, 2, 4],
            "doc_id": ["b", "b", "z"],
            "start_s": [5.0, 20.0, 30.0],
            "end_s": [9.0, 21.5, 31.0],
        },
        qrels={"topic_id": [7, 7, 8, 8], "doc_id": ["a", "junk", "a", "other"], "grade": [1, -2, 4, 0]},
    )


def test_trec_sessions_keep_lists_clicks_and_judgements_of_current_queries(tmp_path):
    logs, outcome = converted("trec_session", trec_session(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "a", "title": "A", "text": "first"},
        {"doc_id": "b", "title": "B", "text": "second"},
    ]
    first = rows(logs, "searches")[0]
    epoch = datetime.datetime(2012, 1, 1, tzinfo=datetime.UTC)
    assert first == {
        "search_id": "1-1",
        "user_id": "1",
        "query": "tax",
        "time": epoch + datetime.timedelta(seconds=1.5),
        "group": "7",
    }
    shown = {"search_id": "1-1", "stage": "shown"}
    assert rows(logs, "candidates") == [
        {**shown, "doc_id": "a", "position": 1, "clicked": False},
        {**shown, "doc_id": "b", "position": 2, "clicked": True, "watch_seconds": 5.5},
    ]
    # Topics 7 and 8 share "tax code": the higher grade of "a" counts. Junk is 0. "tax" is no current query.
    assert sorted((row["query"], row["doc_id"], row["grade"]) for row in rows(logs, "judgements")) == [
        ("tax code", "a", 4.0),
        ("tax code", "junk", 0.0),
        ("tax code", "other", 0.0),
        ("tax law", "a", 1.0),
        ("tax law", "junk", 0.0),
    ]
    assert outcome["dropped"] == {
        "candidates": {"clicks on a result that was not shown": 1, "repeated search_id, doc_id": 1}
    }


def test_homedepot_grades_start_at_0(tmp_path):
    raw = write(
        tmp_path / "raw",
        corpus={"doc_id": ["1"], "title": ["Angle"], "text": [""]},
        queries={"query_id": ["q0", "q1"], "text": ["L  Bracket", "l bracket"]},
        judgements={"query_id": ["q0", "q1"], "doc_id": ["1", "1"], "grade": [2.33, 3.0], "split": ["dev", "dev"]},
    )
    logs, outcome = converted("homedepot", raw, tmp_path)
    assert rows(logs, "documents") == [{"doc_id": "1", "title": "Angle"}]
    assert rows(logs, "judgements") == [{"query": "l bracket", "doc_id": "1", "grade": 1.33, "split": "dev"}]
    assert outcome["dropped"] == {"judgements": {"repeated query, doc_id": 1}}


def test_icecat_keeps_grades_and_release_dates(tmp_path):
    raw = write(
        tmp_path / "raw",
        corpus={
            "doc_id": ["1", "2"],
            "title": ["HP x", "HP y"],
            "text": ["", "Ink"],
            "date_released": ["2011-09-01T00:00:00Z", "unknown"],
        },
        queries={"query_id": ["q0"], "text": ["HP"]},
        judgements={
            "query_id": ["q0", "q0", "q9"],
            "doc_id": ["1", "2", "2"],
            "grade": pa.array([0, 3, 1], pa.int32()),
            "split": ["train"] * 3,
        },
    )
    logs, outcome = converted("icecat", raw, tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "1", "title": "HP x", "published_at": at(0)},
        {"doc_id": "2", "title": "HP y", "text": "Ink"},
    ]
    assert [row["grade"] for row in rows(logs, "judgements")] == [0.0, 3.0]
    assert outcome["dropped"] == {"judgements": {"query: null in a required column": 1}}
    assert outcome["left_empty"] == {"documents": {"published_at: value is no time": 1}}


def beir(folder, *, corpus=None, test="query-id\tcorpus-id\tscore\nq1\td1\t1\nq9\td1\t1\n"):
    (folder / "qrels").mkdir(parents=True)
    lines = corpus or [
        '{"_id": "d1", "title": "T", "text": "x"}',
        '{"_id": 2, "text": "y"}',
        '{"_id": "", "text": "z"}',
    ]
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write("\n".join(lines) + "\n\n")
    queries = [{"_id": "q1", "text": "A claim"}, {"_id": "q2", "text": "Unjudged"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels" / "test.tsv").write_text(test)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\t2\t-1\n")
    return folder


def test_beir_keeps_the_test_judgement_of_a_pair(tmp_path):
    logs, outcome = converted("beir", beir(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "d1", "title": "T", "text": "x"},
        {"doc_id": "2", "title": "", "text": "y"},
    ]
    assert rows(logs, "judgements") == [
        {"query": "a claim", "doc_id": "d1", "grade": 1.0, "split": "test"},
        {"query": "a claim", "doc_id": "2", "grade": 0.0, "split": "train"},
    ]
    assert outcome["dropped"] == {
        "documents": {"doc_id: an empty id": 1},
        "judgements": {"query not in queries.jsonl": 1, "repeated query, doc_id": 1},
    }


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"corpus": ["", "{"]}, r"corpus\.jsonl\.gz, line 2: not a JSON object"),
        ({"corpus": ["[1]"]}, r"line 1: not a JSON object \(list instead"),
        ({"corpus": ['{"_id": "d1", "text": ["x"]}']}, r"line 1: field text is \['x'\], not text"),
        ({"corpus": ['{"_id": "d1", "text": "\\ud800"}']}, r"line 1: not a JSON object \(half a surrogate"),
        ({"test": "q1\td1\t1\n"}, r"test\.tsv, line 1: .*header"),
        ({"test": "query-id\tcorpus-id\tscore\nq1 d1 1\n"}, r"test\.tsv, line 2: .*between tabs"),
    ],
)
def test_beir_names_file_and_line(tmp_path, broken, message):
    with pytest.raises(InputError, match=message):
        converted("beir", beir(tmp_path / "raw", **broken), tmp_path)


def test_beir_drops_and_counts_lines_that_are_broken(tmp_path):
    corpus = ['\ufeff{"_id": "d1", "text": "x"}', '{"_id": "d2", "text": "\\ud83d"}', "[1]", '{"_id": 2, "text": "y"}']
    raw = beir(tmp_path / "raw", corpus=corpus)
    (raw / "queries.jsonl").write_text('{"_id": "q1", "text": "A claim"}\n{"_id": \n', encoding="utf-8")
    logs, outcome = converted("beir", raw, tmp_path)
    assert [row["doc_id"] for row in rows(logs, "documents")] == ["d1", "2"]
    assert outcome["dropped"]["documents"] == {"no JSON object (first: corpus.jsonl.gz, line 2)": 2}
    assert outcome["dropped"]["judgements"]["no JSON object (first: queries.jsonl, line 2)"] == 1


def test_beir_takes_lines_that_leave_out_what_is_null(tmp_path):
    corpus = ['{"_id": "d1", "title": "T"}', '{"text": "x"}', '{"_id": 2, "title": null, "text": "y"}']
    raw = beir(tmp_path / "raw", corpus=corpus, test="\ufeffquery-id\tcorpus-id\tscore\nq1\td1\t1\nq3\td1\t1\n")
    (raw / "queries.jsonl").write_text('{"_id": "q1", "text": "A claim"}\n{"_id": "q3"}\n{"text": "no id"}\n')
    logs, outcome = converted("beir", raw, tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "d1", "title": "T"},
        {"doc_id": "2", "title": "", "text": "y"},
    ]
    assert [(row["query"], row["doc_id"]) for row in rows(logs, "judgements")] == [("a claim", "d1"), ("a claim", "2")]
    assert outcome["dropped"]["documents"] == {"doc_id: null in a required column": 1}
    assert outcome["dropped"]["judgements"] == {"query: an empty query (value)": 1, "repeated query, doc_id": 1}


def test_beir_refuses_a_corpus_that_is_cut_off(tmp_path):
    file = beir(tmp_path / "raw") / "corpus.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz is damaged or cut off"):
        converted("beir", tmp_path / "raw", tmp_path)


@pytest.mark.parametrize("source", ["bestbuy", "trec_session", "homedepot", "icecat", "beir"])
def test_a_wrong_folder_is_refused_with_the_file_that_is_missing(tmp_path, source):
    adapter = importlib.import_module(f"data.sources.{source}")
    with pytest.raises(InputError, match="no such directory"):
        adapter.convert(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no file .*it holds nothing; check --input"):
        adapter.convert(tmp_path)


def test_a_missing_column_and_a_damaged_file_are_named(tmp_path):
    raw = bestbuy(tmp_path / "raw")
    pq.write_table(pq.read_table(raw / "catalog.parquet").drop_columns("name"), raw / "catalog.parquet")
    with pytest.raises(InputError, match=r"catalog\.parquet: column name is missing"):
        converted("bestbuy", raw, tmp_path)
    (raw / "catalog.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"catalog\.parquet is not a Parquet file or is cut off"):
        converted("bestbuy", raw, tmp_path)
    write(raw, catalog={"sku": ["1"], "name": ["a"], "short_description": ["b"], "long_description": ["c"]})
    clicks = pq.read_table(raw / "clicks.parquet")
    pq.write_table(clicks.set_column(5, "query_time", pa.array(["soon"] * 4)), raw / "clicks.parquet")
    with pytest.raises(InputError, match="do not hold what the source publishes"):
        converted("bestbuy", raw, tmp_path)


def test_dropping_follows_references_to_rows_that_were_kept():
    documents = pa.table({"doc_id": ["d1", None, "d1"], "title": ["a", "b", "c"]})
    searches = pa.table({"search_id": ["s1", "s2"], "user_id": ["u", ""], "query": ["a", "b"], "time": [at(1)] * 2})
    candidates = pa.table(
        {
            "search_id": ["s1", "s2", "s1", "s1"],
            "doc_id": ["d1", "d1", "d1", "d1"],
            "stage": ["shown", "shown", "seen", "shown"],
            "position": [1, 1, 1, 0],
        }
    )
    kept, dropped = drop_refused({"documents": documents, "searches": searches, "candidates": candidates})
    assert {name: table.num_rows for name, table in kept.items()} == {"documents": 1, "searches": 1, "candidates": 1}
    assert dropped == {
        "documents": {"doc_id: null in a required column": 1, "repeated doc_id": 1},
        "searches": {"user_id: an empty id": 1},
        "candidates": {
            "stage: unknown stage value": 1,
            "position: position value is below 1": 1,
            "search_id not in searches": 1,
        },
    }


@pytest.mark.parametrize(
    ("source", "folder", "tables", "dropped"),
    [
        (
            "bestbuy",
            "bestbuy_xbox",
            {"documents": 437, "searches": 33_892 - 1_643, "candidates": 33_892 - 234},
            {"candidates": {"doc_id not in documents": 234}},
        ),
        (
            "trec_session",
            "trec_session_2012",
            {"documents": 1_394, "searches": 297, "candidates": 2_157 - 18, "judgements": 41_786},
            {"candidates": {"repeated search_id, doc_id": 18}},
        ),
        (
            "homedepot",
            "homedepot",
            {"documents": 54_667, "judgements": 74_067 - 5},
            {"judgements": {"repeated query, doc_id": 5}},
        ),
        ("icecat", "chorus_icecat", {"documents": 19_406, "judgements": 3_668}, {}),
        (
            "beir",
            "scifact",
            {"documents": 5_183, "judgements": 919 + 339 - 5},
            {"judgements": {"repeated query, doc_id": 5}},
        ),
    ],
)
def test_real_sources_have_the_counts_of_their_description(tmp_path, source, folder, tables, dropped):
    if not (SHARED_DATA / folder).is_dir():
        pytest.skip(f"{SHARED_DATA / folder} is not there")
    logs, outcome = converted(source, SHARED_DATA / folder, tmp_path)
    assert outcome["tables"] == tables
    assert outcome["dropped"] == dropped
    if source == "trec_session":
        searches = logs.read("searches").to_pydict()
        assert len(set(searches["user_id"])) == 98
        assert len(set(searches["group"])) == 48
        clicked = [row for row in logs.read("candidates").to_pylist() if row["clicked"]]
        assert len({row["search_id"].split("-")[0] for row in clicked}) == 72
    if source == "homedepot":
        judgements = logs.read("judgements").to_pydict()
        perfect = sum(s == "train" and grade >= 1.33 for s, grade in zip(judgements["split"], judgements["grade"]))
        # 40,461 pairs in the source; four of the five repeated pairs that were dropped are among them.
        assert perfect == 40_461 - 4
        assert min(judgements["grade"]) == 0
        assert max(judgements["grade"]) == 2
