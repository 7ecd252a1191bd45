"""Adapters of search logs, on tiny hand-made folders: searches, what they showed, and what was viewed."""

import datetime
import json

import pytest

from tests.data.sources.conversions import converted, rows
from tests.data.sources.raw_folders import MS, T0, kuaisar, kuaisearch, put, qilin, recflow, ubi


def test_kuaisearch_rows_are_searches_and_graded_texts_documents(tmp_path):
    logs, outcome = converted("kuaisearch", kuaisearch(tmp_path / "raw"), tmp_path)
    documents = rows(logs, "documents")
    assert documents[0] == {"doc_id": "7", "title": "t7", "keywords": "女装"}
    assert documents[2] | {"doc_id": ""} == {"doc_id": "", "title": "半裙", "text": "长", "keywords": "b s"}
    assert [row["query"] for row in rows(logs, "searches")] == ["貂皮", "地毯"]
    assert rows(logs, "searches")[0]["time"] == datetime.datetime(2025, 1, 1, 0, 1, tzinfo=datetime.UTC)
    shown = {"search_id": "search1", "stage": "shown", "clicked": True}
    assert rows(logs, "candidates") == [shown | {"doc_id": "7"}, shown | {"doc_id": "8"}]
    assert rows(logs, "judgements") == [{"query": "裙", "doc_id": documents[2]["doc_id"], "grade": 2.0}]
    assert outcome["dropped"] == {
        "candidates": {"clicked items that were not impressed": 1, "doc_id not in documents": 1}
    }


def test_kuaisearch_counts_purchases_that_were_not_impressed(tmp_path):
    raw = kuaisearch(tmp_path / "raw")
    lines = (raw / "recall.jsonl").read_text(encoding="utf-8")
    (raw / "recall.jsonl").write_text(
        lines.replace('"purchased_item_ids": [7]', '"purchased_item_ids": [7, 6]'), "utf-8"
    )
    _, outcome = converted("kuaisearch", raw, tmp_path)
    assert outcome["dropped"]["candidates"]["purchased items that were not impressed"] == 1


def test_qilin_has_searches_and_the_clicked_feed(tmp_path):
    logs, outcome = converted("qilin", qilin(tmp_path / "raw"), tmp_path)
    assert rows(logs, "searches") == [{"search_id": "3", "user_id": "1", "query": "beach", "time": T0}]
    shown = {"search_id": "3", "stage": "shown", "liked": False}
    assert rows(logs, "candidates") == [
        {**shown, "doc_id": "10", "position": 1, "clicked": True, "watch_seconds": 4.5},
        {**shown, "doc_id": "11", "position": 2, "clicked": False},
    ]
    assert rows(logs, "feed_views") == [
        {
            "user_id": "1",
            "doc_id": "11",
            "time": T0 + datetime.timedelta(seconds=60),
            "watch_seconds": 4.5,
            "liked": False,
        }
    ]
    assert outcome["dropped"] == {"feed_views": {"recommended but not clicked": 1}}


def test_kuaisar_numbers_become_words_and_every_feed_row_a_view(tmp_path):
    logs, outcome = converted("kuaisar", kuaisar(tmp_path / "raw"), tmp_path)
    published = datetime.datetime(2024, 5, 30, 16, tzinfo=datetime.UTC)
    assert rows(logs, "documents") == [
        {"doc_id": "100", "title": "1 213", "published_at": published},
        {"doc_id": "101", "title": ""},
    ]
    assert rows(logs, "searches") == [{"search_id": "1-4", "user_id": "1", "query": "20 34 3", "time": T0}]
    assert rows(logs, "candidates") == [{"search_id": "1-4", "doc_id": "100", "stage": "shown", "clicked": True}]
    assert rows(logs, "feed_views") == [
        {"user_id": "1", "doc_id": "100", "time": T0, "watch_seconds": 1.5, "liked": True}
    ]
    assert outcome["dropped"] == {
        "searches": {"query: an empty query (value)": 1},
        "candidates": {"search_id not in searches": 1, "doc_id not in documents": 1},
    }


def test_recflow_has_every_stage_of_the_funnel(tmp_path):
    logs, outcome = converted("recflow", recflow(tmp_path / "raw"), tmp_path)
    assert rows(logs, "searches") == [
        {"search_id": "9", "user_id": "1", "query": "user_1 age_2 gender_2 province_2", "time": T0}
    ]
    candidates = rows(logs, "candidates")
    assert [row["stage"] for row in candidates] == ["shown", "ranked_not_shown", "filtered_before_ranking"]
    assert candidates[0]["clicked"] is True
    assert candidates[0]["watch_seconds"] == 2.5
    assert "watch_seconds" not in candidates[1]
    assert rows(logs, "documents")[0]["title"].startswith("video_0 author_2 ")
    assert outcome["dropped"] == {"candidates": {"stage: unknown stage value": 1}}


def test_ubi_impressions_tell_shown_hits_from_ranked_ones(tmp_path):
    logs, outcome = converted("ubi", ubi(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "a", "title": "Tv a"},
        {"doc_id": "c", "title": "Tv c"},
        {"doc_id": "b", "title": "Television b", "text": "old"},
    ]
    assert rows(logs, "searches") == [
        {"search_id": "q1", "user_id": "c", "query": "tv", "time": T0},
        {"search_id": "q2", "user_id": "c", "query": "tv stand", "time": T0},
    ]
    assert rows(logs, "candidates") == [
        {"search_id": "q1", "doc_id": "a", "stage": "shown", "position": 1, "clicked": False},
        {"search_id": "q1", "doc_id": "b", "stage": "shown", "position": 2, "clicked": True},
        {"search_id": "q1", "doc_id": "c", "stage": "ranked_not_shown", "clicked": False},
        {"search_id": "q2", "doc_id": "b", "stage": "shown", "position": 1, "clicked": False},
    ]
    assert outcome["dropped"] == {
        "candidates": {"clicks and impressions without a query_id": 1, "doc_id not in documents": 1}
    }


def exported_ubi(folder, queries, events):
    documents = [{"doc_id": f"d{i}", "title": f"title {i}"} for i in range(3)]
    return put(folder, {"ubi_queries.jsonl": queries, "ubi_events.jsonl": events, "documents.jsonl": documents})


def logged_query(number, **more):
    return {"query_id": f"q{number}", "client_id": "c", "user_query": "red shoe", "timestamp": MS} | {
        "query_response_hit_ids": ["d0", "d1"],
        **more,
    }


def clicked(number, doc_id, **more):
    return {
        "action_name": "click",
        "query_id": f"q{number}",
        "event_attributes": {"object": {"object_id": doc_id}},
    } | more


@pytest.mark.parametrize(
    "first",
    [{"action_name": "login"}, {"action_name": "page_view", "event_attributes": {"object": {"object_id": "x"}}}],
)
@pytest.mark.parametrize("place", [0, 1])
def test_ubi_keys_are_those_of_all_events_in_any_order(tmp_path, first, place):
    events = [clicked(1, "d1")]
    events.insert(place, first)
    logs, outcome = converted("ubi", exported_ubi(tmp_path / "raw", [logged_query(1)], events), tmp_path)
    assert [(row["doc_id"], row["clicked"]) for row in rows(logs, "candidates")] == [("d0", False), ("d1", True)]
    assert outcome["dropped"] == {}


def test_ubi_queries_lack_users_and_hits_in_single_lines(tmp_path):
    lacking = logged_query(1)
    del lacking["client_id"], lacking["query_response_hit_ids"]
    queries = [lacking, logged_query(2), logged_query(3, query_response_hit_ids=[], client_id=None, session_id="s")]
    logs, outcome = converted("ubi", exported_ubi(tmp_path / "raw", queries, [clicked(3, "d2")]), tmp_path)
    assert [(row["search_id"], row["user_id"]) for row in rows(logs, "searches")] == [("q2", "c"), ("q3", "s")]
    assert [(row["search_id"], row["doc_id"]) for row in rows(logs, "candidates")] == [
        ("q2", "d0"),
        ("q2", "d1"),
        ("q3", "d2"),
    ]
    assert outcome["dropped"] == {"searches": {"user_id: null in a required column": 1}}


def test_ubi_clicks_without_an_object_are_counted_and_an_empty_client_is_none(tmp_path):
    events = [clicked(1, "d1"), clicked(1, "d0", event_attributes={"object.object_id": "d0"}), {"action_name": "login"}]
    queries = [logged_query(1, client_id="", session_id="s")]
    logs, outcome = converted("ubi", exported_ubi(tmp_path / "raw", queries, events), tmp_path)
    assert [(row["doc_id"], row["clicked"]) for row in rows(logs, "candidates")] == [("d0", False), ("d1", True)]
    assert [row["user_id"] for row in rows(logs, "searches")] == ["s"]
    assert outcome["dropped"] == {"candidates": {"clicks and impressions without an object_id": 1}}


def test_ubi_as_export_tools_of_opensearch_write_it(tmp_path):
    times = [
        MS // 1000,
        MS,
        MS * 1000,
        "2024-05-31T12:00:00.000Z",
        "2024-05-31T12:00:00.000000Z",
        "2024-05-31T14:00:00+02:00",
    ]
    queries = [
        {"_index": "ubi_queries", "_source": logged_query(i, timestamp=time, query_response_object_ids=["d2"])}
        for i, time in enumerate(times)
    ]
    queries += [
        {"_source": logged_query(9, timestamp=0)},
        {"_source": logged_query(10, timestamp="1970-01-01T00:00:00Z")},
    ]
    raw = exported_ubi(tmp_path / "raw", queries, [{"_source": clicked(0, "d2")}])
    lines = (raw / "ubi_queries.jsonl").read_text() + json.dumps(queries[0])[:-9] + "\n"
    (raw / "ubi_queries.jsonl").write_text("\ufeff" + lines)
    logs, outcome = converted("ubi", raw, tmp_path)
    assert [row["time"] for row in rows(logs, "searches")] == [T0] * len(times)
    assert [(row["doc_id"], row["position"], row["clicked"]) for row in rows(logs, "candidates")] == [
        ("d2", 1, i == 0) for i in range(len(times))
    ]
    assert outcome["dropped"] == {
        "searches": {"no JSON object (first: ubi_queries.jsonl, line 9)": 1, "time: value is no time": 2},
        "candidates": {"search_id not in searches": 4},
    }


def test_kuaisearch_keys_of_later_lines_are_read(tmp_path):
    raw = kuaisearch(tmp_path / "raw")
    searched = [json.loads(line) for line in (raw / "recall.jsonl").read_text().splitlines()]
    del searched[1]["purchased_item_ids"], searched[1]["clicked_item_ids"]
    put(raw, {"recall.jsonl": searched[::-1]})
    logs, _ = converted("kuaisearch", raw, tmp_path)
    assert [(row["doc_id"], row["clicked"]) for row in rows(logs, "candidates")] == [("7", True), ("8", True)]
