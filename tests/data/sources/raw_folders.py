"""Tiny raw folders, each in the published layout of a source."""

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

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
