"""Logs of a few days, whole and in a folder a day, and data.mine --day over them."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq

from data.mine import mine
from data.tables import SCHEMAS, write_table
from tests.mining_arguments import mine_arguments

DAYS = ["2024-02-28", "2024-02-29", "2024-03-01"]
WORDS = ["red shoe", "red shoes", "blue shoe", "Red  Shoes"]
USERS = ["user-ann", "user-bob", "user-cat"]
DOCUMENTS = [{"doc_id": f"d{i}", "title": f"{'red' if i % 2 else 'blue'} shoe {i}"} for i in range(5)]
MIDNIGHTS = [datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC) for day in DAYS]
STAGES = ["shown", "shown", "ranked_not_shown", "filtered_before_ranking"]
SECONDS = [-2000, -1800, -91, -90, -60, -30, -1, -1e-6, 0, 1, 29, 30, 60, 89.5, 90, 1799, 5000]


def logs_of(random, number):
    """Tables of some searches and feed views around the midnights of the days, so that the windows reach over them."""
    end = MIDNIGHTS[-1] + datetime.timedelta(days=1)

    def moment():
        time = random.choice([*MIDNIGHTS, end]) + datetime.timedelta(seconds=random.choice(SECONDS))
        return min(max(time, MIDNIGHTS[0]), end - datetime.timedelta(microseconds=1))

    def candidate(search, doc):
        return {
            "search_id": search["search_id"],
            "doc_id": f"d{doc}",
            "stage": random.choice(STAGES),
            "clicked": random.choice([None, False, True]),
            "watch_seconds": random.choice([None, 5.0, 30.0]),
        }

    searches = [
        {"search_id": f"s{i}", "user_id": random.choice(USERS), "query": random.choice(WORDS), "time": moment()}
        for i in range(number)
    ]
    return {
        "searches": searches,
        "candidates": [
            candidate(search, doc) for search in searches for doc in random.sample(range(5), random.randint(1, 3))
        ],
        "feed_views": [
            {"user_id": random.choice(USERS), "doc_id": f"d{random.randrange(5)}", "time": moment()}
            for _ in range(number // 2)
        ],
    }


def write_whole(directory, tables):
    """One file a table."""
    directory.mkdir(parents=True)
    for name, rows in {"documents": DOCUMENTS, **tables}.items():
        write_table(directory, name, pa.Table.from_pylist(rows, SCHEMAS[name].arrow))
    return directory


def write_partitioned(directory, tables):
    """Folders day=YYYY-MM-DD: candidates lie with their search. Every day has its folders, if without rows."""
    directory.mkdir(parents=True)
    write_table(directory, "documents", pa.Table.from_pylist(DOCUMENTS, SCHEMAS["documents"].arrow))
    day_of = {row["search_id"]: str(row["time"].date()) for row in tables["searches"]}
    for name, rows in tables.items():
        schema = pa.schema([(column.name, column.arrow_type) for column in SCHEMAS[name].columns])
        for day in DAYS:
            of_day = [
                row
                for row in rows
                if (day_of[row["search_id"]] if name == "candidates" else str(row["time"].date())) == day
            ]
            folder = directory / name / f"day={day}"
            folder.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(of_day, schema), folder / "part-0.parquet")
    return directory


def one_run(logs, output, **arguments):
    mine(mine_arguments(logs=str(logs), output=str(output), **arguments))
    return contents(output)


def add(day, logs, root, **arguments):
    return mine(
        mine_arguments(logs=str(logs), output=str(root / "labels"), day=day, state=str(root / "state"), **arguments)
    )


def contents(labels):
    return pq.read_table(labels / "labels.parquet").to_pylist(), json.loads((labels / "alpha_sweep.json").read_text())


def on_29_february(seconds):
    return MIDNIGHTS[1] + datetime.timedelta(seconds=seconds)


def search(search_id, user, query, seconds):
    return {"search_id": search_id, "user_id": user, "query": query, "time": on_29_february(seconds)}


def view(doc, seconds):
    return {"user_id": "user-ann", "doc_id": doc, "time": on_29_february(seconds)}


def click(search_id, doc, clicked=True):
    return {"search_id": search_id, "doc_id": doc, "stage": "shown", "clicked": clicked}


OVER_MIDNIGHT = {
    "searches": [
        search("s0", "user-bob", "blue shoe", -12 * 3600),
        search("s1", "user-ann", "red shoe", -60),
        search("s2", "user-ann", "red shoes", 29),
    ],
    "candidates": [click("s0", "d2"), click("s1", "d4", clicked=False), click("s2", "d1")],
    "feed_views": [view("d3", -1800), view("d1", 1)],
}
"""User ann asks for "red shoe" 60 s before the midnight to 29 February and for "red shoes" 29 s after, where she clicks
d1. The feed showed her d3 half an hour before midnight and d1 a second after. Bob asks on 28 February alone, at noon,
and clicks d2."""
