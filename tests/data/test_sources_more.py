"""Adapters over DuckDB: tiny hand-made folders in each source's published layout, and real samples where they are."""

import datetime
import gzip
import importlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.convert import ConvertArguments, convert
from data.tables import open_logs

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
T0 = datetime.datetime(2024, 5, 31, 12, tzinfo=datetime.UTC)
MS = int(T0.timestamp() * 1000)


def put(folder, files):
    """Writes files by name: text, lists of objects (as JSON lines) or tables."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            write = pyarrow.feather.write_feather if file.suffix == ".feather" else pq.write_table
            write(content, file)
            continue
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return folder


def converted(source, raw, tmp_path, name="logs", **options):
    outcome = convert(ConvertArguments(source=source, input=str(raw), output=str(tmp_path / name), **options))
    return open_logs(tmp_path / name), outcome


def rows(logs, name):
    return [{key: value for key, value in row.items() if value is not None} for row in logs.read(name).to_pylist()]


def kuaisearch(folder):
    search = {"user_id": 1, "session_id": 1, "time_index": 60, "split": "train"}
    return put(
        folder,
        {
            "recall.jsonl": [
                {**search, "query": "貂皮", "impressed_item_ids": [7, 8, 9], "clicked_item_ids": [8, 5]}
                | {"purchased_item_ids": [7]},
                {**search, "query": "地毯", "impressed_item_ids": [], "clicked_item_ids": [], "purchased_item_ids": []},
            ],
            "items.jsonl": [
                {"item_id": i, "item_title": f"t{i}", "brand_name": "UNKNOWN", "category_level1_name": "女装"}
                for i in (7, 8)
            ],
            "relevance.jsonl": [
                {"query": "裙", "item_title": "半裙", "brand": "b", "seller_name": "s", "attr_value": "长", "score": 2}
            ],
        },
    )


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


def qilin(folder):
    def result(note, position, click, time, **more):
        return {"note_idx": note, "position": position, "click": click, "like": 0, "page_time": 4.5, **time, **more}

    search = {"search_timestamp": MS // 1000}
    search_train = [
        {
            "search_idx": 3,
            "user_idx": 1,
            "query": "beach",
            "search_result_details_with_idx": [result(10, 0, 1, search), result(11, 1, 0, search)],
        }
    ]
    feed = [
        {
            "request_idx": 5,
            "user_idx": 1,
            "rec_result_details_with_idx": [
                result(11, 0, 1, {"request_timestamp": MS // 1000 + 60}, share=0),
                result(10, 1, 0, {"request_timestamp": MS // 1000 + 60}, share=0),
            ],
        }
    ]
    notes = pa.table({"note_idx": [10, 11], "note_title": ["ten", None], "note_content": ["", "eleven"]})
    return put(
        folder,
        {
            "notes/train-00000.parquet": notes,
            "search_train/train-00000.parquet": pa.Table.from_pylist(search_train),
            "recommendation_train/train-00000.parquet": pa.Table.from_pylist(feed),
        },
    )


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


def kuaisar(folder):
    return put(
        folder,
        {
            "src_inter.csv": "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,"
            "search_source,item_id,click_cnt,item_type\n"
            f'1,4,x,{MS},"[20, 34, 3]",USER_INPUT,100,0,VIDEO\n1,4,x,{MS},"[20, 34, 3]",USER_INPUT,100,2,VIDEO\n'
            f'1,4,x,{MS}.0,"[20, 34, 3]",USER_INPUT,999,0,LIVE\n2,4,x,{MS},[],USER_INPUT,100,0,VIDEO\n',
            "rec_inter.csv": "user_id,item_id,playing_time,duration_ms,time,timestamp,click,like\n"
            f"1,100,1500.0,9,x,{MS},0,1\n",
            "item_features.csv": 'item_id,caption,upload_time\n100,"[1, 213]",2024-05-31\n101,[],1970-01-01\n',
        },
    )


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


def recflow(folder):
    flags = ("rerank_pos", "rerank_neg", "rank_pos", "rank_neg", "coarse_neg", "prerank_neg")
    features = ("age", "gender", "province", "author_id", "category_level_one", "category_level_two", "upload_type")
    stages = [{"realshow": 1, "rerank_pos": 1, "effective_view": 1, "like": 0}, {"rank_neg": 1}, {"prerank_neg": 1}, {}]
    empty = dict.fromkeys(("realshow", "effective_view", "like", *flags), 0) | dict.fromkeys(features, 2)
    rows = [
        {**empty, "request_id": 9, "user_id": 1, "video_id": number, "request_timestamp": MS, "upload_timestamp": MS}
        | {"playing_time": 2500}
        | stage
        for number, stage in enumerate(stages)
    ]
    return put(folder, {"all_stage/2024-01-13.feather": pa.Table.from_pylist(rows)})


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


def esci(folder):
    products = {
        "product_id": ["B1", "B1"],
        "product_title": ["Kettle", "Wasserkocher"],
        "product_description": [None, "<b>heiß</b>"],
        "product_bullet_point": ["steel", None],
        "product_brand": ["Acme", None],
        "product_color": [None, None],
        "product_locale": ["us", "de"],
    }
    examples = {
        "query": ["Kettle "] * 3,
        "product_id": ["B1", "B2", "B3"],
        "product_locale": ["us"] * 3,
        "esci_label": ["E", "C", "?"],
        "split": ["train", "test", "test"],
    }
    return put(
        folder,
        {
            "shopping_queries_dataset_products.parquet": pa.table(products),
            "shopping_queries_dataset_examples.parquet": pa.table(examples),
        },
    )


def test_esci_labels_become_grades_and_pages_belong_to_a_country(tmp_path):
    logs, outcome = converted("esci", esci(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "us:B1", "title": "Kettle", "text": "steel", "keywords": "Acme"},
        {"doc_id": "de:B1", "title": "Wasserkocher", "text": "<b>heiß</b>", "keywords": ""},
    ]
    assert rows(logs, "judgements") == [
        {"query": "kettle", "doc_id": "us:B1", "grade": 3.0, "split": "train"},
        {"query": "kettle", "doc_id": "us:B2", "grade": 1.0, "split": "test"},
    ]
    assert outcome["dropped"] == {"judgements": {"grade: null in a required column": 1}}


def msmarco(folder):
    return put(
        folder,
        {
            "collection.tsv.gz": '0\tThe "Manhattan" project,\n1\tB\n',
            "queries.train.tsv": "5\tWho?\n",
            "qrels.train.tsv": "5\t0\t1\t1\n8\t0\t1\t1\n",
            "queries.dev.tsv": "6\tWhat\n7\tHow\n",
            "qrels.dev.tsv": "6\t0\t0\t1\n7\t0\t1\t1\n",
            "queries.dev.small.tsv": "7\tHow\n",
            "qrels.dev.small.tsv": "7\t0\t1\t1\n",
        },
    )


def test_msmarco_small_dev_is_the_test_split(tmp_path):
    logs, outcome = converted("msmarco", msmarco(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents")[0] == {"doc_id": "0", "title": "", "text": 'The "Manhattan" project,'}
    assert [(row["query"], row["doc_id"], row["split"]) for row in rows(logs, "judgements")] == [
        ("how", "1", "test"),
        ("what", "0", "dev"),
        ("who?", "1", "train"),
    ]
    assert outcome["dropped"] == {"judgements": {"query not in queries": 1, "repeated query, doc_id": 1}}


def wands(folder):
    return put(
        folder,
        {
            "product.csv": "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\t"
            'product_features\n1\tSofa\tSofas\tHome / Sofas\t"soft, ""warm"""\ta:b|c:d\n',
            "query.csv": "query_id\tquery\tquery_class\n0\tRed Sofa\tSofas\n",
            "label.csv": "id\tquery_id\tproduct_id\tlabel\n0\t0\t1\tExact\n1\t0\t2\tPartial\n2\t9\t1\tExact\n",
        },
    )


def test_wands_files_are_separated_by_tabs(tmp_path):
    logs, outcome = converted("wands", wands(tmp_path / "raw"), tmp_path)
    (document,) = rows(logs, "documents")
    assert document["text"] == 'soft, "warm"\na:b\nc:d'
    assert document["keywords"].split() == ["Sofas", "Home", "Sofas"]
    assert [(row["doc_id"], row["grade"]) for row in rows(logs, "judgements")] == [("1", 2.0), ("2", 1.0)]
    assert outcome["dropped"] == {"judgements": {"query not in query.csv": 1}}


def multi_cpr(folder):
    return put(
        folder,
        {
            "corpus.tsv": "1\t尼康\n2\t佳能\n",
            "train.query.txt": "1\t相机\n",
            "dev.query.txt": "200000\t尼康z62\n",
            "qrels.train.tsv": "1\t0\t2\t1\n",
            "qrels.dev.tsv": "200000\t0\t1\t1\n",
        },
    )


def test_multi_cpr_dev_is_the_test_split(tmp_path):
    logs, _ = converted("multi_cpr", multi_cpr(tmp_path / "raw"), tmp_path)
    assert rows(logs, "judgements") == [
        {"query": "尼康z62", "doc_id": "1", "grade": 1.0, "split": "test"},
        {"query": "相机", "doc_id": "2", "grade": 1.0, "split": "train"},
    ]


def ubi(folder):
    def event(action, query_id, object_id, **more):
        return {"action_name": action, "query_id": query_id, "client_id": "c", "timestamp": MS} | {
            "event_attributes": {"object": {"object_id": object_id, **more}, "position": {"ordinal": 1}}
        }

    query = {"client_id": "c", "application": "shop", "query_attributes": {}}
    return put(
        folder,
        {
            "ubi_queries.ndjson": [
                {**query, "query_id": "q1", "user_query": "tv", "timestamp": "2024-05-31T12:00:00Z"}
                | {"query_response_hit_ids": ["a", "b", "c"]},
                {**query, "query_id": "q2", "user_query": "tv stand", "timestamp": MS, "query_response_hit_ids": ["b"]},
            ],
            "ubi_events.ndjson": [
                event("impression", "q1", "a"),
                event("item_click", "q1", "b", name="Television b", description="old"),
                event("click", "q2", "x"),
                event("click", None, "a"),
                event("hover", "q2", "c"),
                {"action_name": "login", "client_id": "c"},
            ],
            "documents.jsonl": [{"doc_id": "a", "title": "Tv a"}, {"doc_id": "c", "title": "Tv c"}],
        },
    )


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


MAPPING = """
[documents]
files = "products/*.jsonl.gz"
[documents.columns]
doc_id = "sku"
title = ["brand", "name"]

[searches]
files = "searches.csv"
time_format = "%d/%m/%Y %H:%M:%S"
time_zone = "Asia/Shanghai"
[searches.columns]
search_id = "id"
user_id = "visitor"
query = "typed"
time = "at"
[searches.constants]
group = "it's spring"

[candidates]
files = "results.parquet"
[candidates.columns]
search_id = "id"
doc_id = "sku"
stage = "state"
clicked = "clicked"
watch_seconds = "ms"
[candidates.values.stage]
exposed = "shown"
[candidates.scale]
watch_seconds = 0.001
"""


def mapped(folder, mapping=MAPPING):
    results = {"id": [1, 1, 2], "sku": ["s1", "s2", "s1"], "state": ["exposed", "seen", "exposed"]}
    return put(
        folder,
        {
            "mapping.toml": mapping,
            "products/a.jsonl.gz": [{"sku": "s1", "brand": "Acme", "name": "Tv"}],
            "products/b.jsonl.gz": [{"sku": "s2", "brand": None, "name": "Lamp"}],
            "searches.csv": "id,visitor,typed,at\n1,u,tv,31/05/2024 20:00:00\n2,u,lamp,tomorrow\n",
            "results.parquet": pa.table(results | {"clicked": [1, 0, 1], "ms": [2500, None, 1]}),
        },
    )


def test_mapping_reads_files_of_three_formats(tmp_path):
    logs, outcome = converted("mapping", mapped(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [{"doc_id": "s1", "title": "Acme Tv"}, {"doc_id": "s2", "title": "Lamp"}]
    assert rows(logs, "searches") == [
        {"search_id": "1", "user_id": "u", "query": "tv", "time": T0, "group": "it's spring"}
    ]
    assert rows(logs, "candidates") == [
        {"search_id": "1", "doc_id": "s1", "stage": "shown", "clicked": True, "watch_seconds": 2.5}
    ]
    assert outcome["dropped"] == {
        "searches": {"time: null in a required column": 1},
        "candidates": {"stage: unknown stage value": 1, "search_id not in searches": 1},
    }


@pytest.mark.parametrize(
    ("times", "fields"),
    [
        (str(MS), 'time_unit = "ms"'),
        (str(MS / 1000), 'time_unit = "s"'),
        ("2024-05-31T12:00:00Z", ""),
        ("2024-05-31 14:00:00+02", 'time_zone = "Asia/Shanghai"'),
        ("2024-05-31 20:00:00", 'time_zone = "Asia/Shanghai"'),
        ("2024-05-31 12:00:00", ""),
        ("31.05.2024 14:00 +0200", 'time_format = "%d.%m.%Y %H:%M %z"'),
    ],
)
def test_mapping_takes_times_as_they_come(tmp_path, times, fields):
    searches = f'files = "searches.csv"\n{fields}\n[searches.columns]'
    mapping = MAPPING[: MAPPING.index('files = "searches.csv"')] + searches + MAPPING.split("[searches.columns]")[1]
    raw = mapped(tmp_path / "raw", mapping)
    (raw / "searches.csv").write_text(f"id,visitor,typed,at\n1,u,tv,{times}\n")
    logs, _ = converted("mapping", raw, tmp_path)
    assert rows(logs, "searches")[0]["time"] == T0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[documents]\n", "[documents\n", r"mapping\.toml is not TOML"),
        ("[documents]\n", "[products]\n", r"unknown table products"),
        ('title = ["brand", "name"]', "", r"\[documents\] maps no title"),
        ('doc_id = "sku"\ntitle', 'doc_id = "asin"\ntitle', r"products/\*\.jsonl\.gz: column asin"),
        ("products/*.jsonl.gz", "products/*.xml", r"documents\.files is 'products/\*\.xml'"),
        ('files = "searches.csv"', "", r"\[searches\] has no text `files`"),
        ('files = "searches.csv"', 'files = "searches.csv"\nunit = 1', r"\[searches\] has unknown unit"),
        ("Asia/Shanghai", "Atlantis", r"searches\.time_zone is 'Atlantis'"),
        ('time_format = "%d/%m/%Y %H:%M:%S"', 'time_unit = "h"', r"searches\.time_unit is 'h'"),
        ("watch_seconds = 0.001", 'watch_seconds = "x"', r"candidates\.scale\.watch_seconds is 'x'"),
        ('exposed = "shown"', "exposed = []", r"candidates\.values\.stage\.exposed is \[\]"),
    ],
)
def test_mapping_names_the_field_that_is_wrong(tmp_path, old, new, message):
    assert old in MAPPING
    with pytest.raises(InputError, match=message):
        converted("mapping", mapped(tmp_path / "raw", MAPPING.replace(old, new, 1)), tmp_path)


def test_the_mapping_may_lie_elsewhere_and_goes_with_its_source_only(tmp_path):
    raw = mapped(tmp_path / "raw")
    file = (raw / "mapping.toml").rename(tmp_path / "shop.toml")
    with pytest.raises(InputError, match=r"mapping\.toml: no such file"):
        converted("mapping", raw, tmp_path)
    converted("mapping", raw, tmp_path, mapping=str(file))
    with pytest.raises(InputError, match="--mapping goes with --source mapping"):
        converted("esci", raw, tmp_path, mapping=str(file))


def qbqtc(folder):
    pair = {"id": 0, "query": "感冒 吃什么", "title": "感冒吃什么药"}
    return put(
        folder,
        {
            "train.json": [
                {**pair, "label": "2"},
                {**pair, "title": "英雄", "label": "0"},
                {**pair, "title": "育儿", "label": "1"},
            ],
            "dev.json": [{**pair, "query": "英雄", "title": "英雄", "label": "2"}, {**pair, "label": "1"}],
            "test.json": [{**pair, "title": "育儿", "label": "0"}, {**pair, "label": ""}],
        },
    )


def test_qbqtc_titles_are_documents_and_a_pair_in_several_files_is_no_training_pair(tmp_path):
    logs, outcome = converted("qbqtc", qbqtc(tmp_path / "raw"), tmp_path)
    titles = {row["doc_id"]: row["title"] for row in rows(logs, "documents")}
    assert sorted(titles.values()) == ["感冒吃什么药", "育儿", "英雄"]
    assert [(row["query"], titles[row["doc_id"]], row["grade"], row["split"]) for row in rows(logs, "judgements")] == [
        ("感冒 吃什么", "育儿", 0, "test"),
        ("英雄", "英雄", 2, "dev"),
        ("感冒 吃什么", "感冒吃什么药", 1, "dev"),
        ("感冒 吃什么", "英雄", 0, "train"),
    ]
    assert outcome["dropped"]["judgements"] == {"without a grade of 0, 1 or 2": 1, "repeated query, doc_id": 2}


def test_one_file_of_qbqtc_alone_has_no_split(tmp_path):
    raw = qbqtc(tmp_path / "raw")
    for name in ("train.json", "test.json"):
        (raw / name).unlink()
    logs, _ = converted("qbqtc", raw, tmp_path)
    assert all("split" not in row for row in rows(logs, "judgements"))


MAKERS = [kuaisearch, qilin, kuaisar, recflow, esci, msmarco, wands, multi_cpr, qbqtc, ubi, mapped]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_same_input_gives_the_same_bytes(tmp_path, make):
    raw = make(tmp_path / "raw")
    source = "mapping" if make is mapped else make.__name__
    for name in ("a", "b"):
        converted(source, raw, tmp_path, name)
    a, b = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert a == b


@pytest.mark.parametrize("make", MAKERS[:-1], ids=lambda make: make.__name__)
def test_a_wrong_folder_is_refused_with_the_file_that_is_missing(tmp_path, make):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such"):
        converted(make.__name__, tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match=r"no file .*it holds nothing; check --input"):
        converted(make.__name__, tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    ("make", "name", "old", "new", "message"),
    [
        (kuaisar, "src_inter.csv", "keyword", "words", r"src_inter\.csv: column keyword is missing, it has user_id"),
        (kuaisar, "rec_inter.csv", "1500.0", "long", r"rec_inter\.csv: column playing_time holds 'long'.*no DOUBLE"),
        (kuaisar, "item_features.csv", None, "", r"item_features\.csv is empty"),
        (kuaisearch, "recall.jsonl", '"query"', '"words"', r"recall\.jsonl: column query is missing"),
        (kuaisearch, "recall.jsonl", None, '{"user_id": 1', r"recall\.jsonl is not jsonl or is cut off"),
        (
            kuaisearch,
            "relevance.jsonl",
            '"score": 2',
            '"score": "x"',
            r"does not hold what .*relevance\.jsonl.* line 1",
        ),
        (
            esci,
            "shopping_queries_dataset_products.parquet",
            None,
            "PAR1",
            r"products\.parquet is not parquet or is cut",
        ),
        (recflow, "all_stage/2024-01-13.feather", None, "FEA1", r"13\.feather is not feather or is cut off"),
        (msmarco, "qrels.train.tsv", "5\t0\t1\t1", "5 0 1 1", r"qrels\.train\.tsv: does not hold what .*Line: 1"),
        (msmarco, "collection.tsv.gz", None, None, r"does not hold what .*"),
    ],
)
def test_wrong_input_is_refused_by_file_and_column(tmp_path, make, name, old, new, message):
    raw = make(tmp_path / "raw")
    file = raw / name
    if new is None:
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.write_text(new if old is None else file.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        converted(make.__name__, raw, tmp_path)
    assert not (tmp_path / "logs").exists()


def test_every_adapter_says_what_it_has_lacks_and_feeds():
    for make in MAKERS[:-1]:
        text = importlib.import_module(f"data.sources.{make.__name__}").__doc__
        assert all(word in text for word in ("Has:", "Lacks:", "perspective" if "no perspective" in text else "feeds"))
        assert ("Untested on the real files" in text) != ("Tested on" in text)


@pytest.mark.parametrize(
    ("source", "folder", "tables", "dropped"),
    [
        (
            "kuaisearch",
            "kuaisearch_demo",
            {"documents": 400, "searches": 200, "candidates": 2, "judgements": 200},
            {"candidates": {"doc_id not in documents": 25_428}},
        ),
        ("esci", "esci_sample", {"documents": 16, "judgements": 16}, {}),
        (
            "qbqtc",
            "qbqtc_dev",
            {"documents": 19_317, "judgements": 19_944},
            {"judgements": {"repeated query, doc_id": 56}},
        ),
    ],
)
def test_real_samples_have_the_counts_of_their_description(tmp_path, source, folder, tables, dropped):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is not there")
    logs, outcome = converted(source, SHARED / folder, tmp_path)
    assert outcome["tables"] == tables
    assert outcome["dropped"] == dropped
    grades = logs.read("judgements").column("grade").to_pylist()
    if source == "kuaisearch":
        assert [grades.count(grade) for grade in range(4)] == [17, 40, 76, 67]
    else:
        assert set(grades) <= {0, 1, 2, 3}
