"""KuaiSearch: e-commerce search of Kuaishou, in Chinese, from recall to relevance.

Has: user, session, query, the items impressed, clicked and bought; titles, brands and categories of items; graded
pairs of a query and an item's text.
Lacks: calendar time, positions, the stages before showing, watch time, a feed.
It feeds the search log (clicks, and shown but not clicked) and the query level (the same user's next query).
Tested on the authors' demo rows. Their files hardly join, so nearly all shown items are dropped there.

A search is a row of recall.jsonl; buying implies a click. time_index has no stated unit and is taken as seconds after
a fixed epoch: check this before trusting windows of time. Items without a row in items.jsonl are dropped and counted.
The graded pairs name no item: each distinct text of title, brand, seller and attributes is a document of its own,
`graded-` and a digest; scores 0 to 3 are kept. rank.jsonl (the ranker's view of the same searches) and users.jsonl
are not read.
Files: recall.jsonl, items.jsonl, relevance.jsonl.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed

EPOCH = "2025-01-01 00:00:00+00"

_RAW = {
    "recall": RawTable(
        files=("recall.jsonl", "recall.jsonl.gz"),
        layout="jsonl",
        columns={
            "user_id": "VARCHAR",
            "session_id": "VARCHAR",
            "query": "VARCHAR",
            "time_index": "DOUBLE",
            "impressed_item_ids": "VARCHAR[]",
            "clicked_item_ids": "VARCHAR[]",
        },
        optional={"purchased_item_ids": "VARCHAR[]"},
        feeds="searches",
    ),
    "items": RawTable(
        files=("items.jsonl", "items.jsonl.gz"),
        layout="jsonl",
        columns={"item_id": "VARCHAR", "item_title": "VARCHAR"},
        optional=dict.fromkeys(
            ("brand_name", "category_level1_name", "category_level2_name", "category_level3_name"), "VARCHAR"
        ),
    ),
    "relevance": RawTable(
        files=("relevance.jsonl", "relevance.jsonl.gz"),
        layout="jsonl",
        columns={"query": "VARCHAR", "item_title": "VARCHAR", "score": "DOUBLE"},
        optional={"brand": "VARCHAR", "seller_name": "VARCHAR", "attr_value": "VARCHAR"},
        feeds="judgements",
    ),
}
_GRADED_ID = "'graded-' || left(sha256(concat_ws(chr(31), item_title, brand, seller_name, attr_value)), 24)"
_SEARCHES = "SELECT *, 'search' || row_number() OVER () AS search_id FROM recall"
_QUERIES = {
    "documents": f"""
        SELECT item_id AS doc_id, item_title AS title, NULL AS text, concat_ws(' ', nullif(brand_name, 'UNKNOWN'),
            nullif(category_level1_name, 'UNKNOWN'), nullif(category_level2_name, 'UNKNOWN'),
            nullif(category_level3_name, 'UNKNOWN')) AS keywords
        FROM items
        UNION ALL (
            SELECT DISTINCT {_GRADED_ID} AS doc_id, item_title, attr_value, concat_ws(' ', brand, seller_name)
            FROM relevance ORDER BY doc_id
        )
    """,
    "searches": f"""
        SELECT search_id, user_id, query, TIMESTAMPTZ '{EPOCH}' + to_microseconds(CAST(time_index * 1e6 AS BIGINT))
            AS time
        FROM ({_SEARCHES})
    """,
    "candidates": f"""
        SELECT search_id, doc_id, 'shown' AS stage,
            list_contains(list_concat(coalesce(clicked_item_ids, []), coalesce(purchased_item_ids, [])), doc_id)
            AS clicked
        FROM (SELECT *, unnest(impressed_item_ids) AS doc_id FROM ({_SEARCHES}))
    """,
    "judgements": f"SELECT query, {_GRADED_ID} AS doc_id, score AS grade FROM relevance",
}
_COUNTS = {
    ("candidates", f"{name} items that were not impressed"): f"""
        SELECT coalesce(sum(len(list_filter({name}_item_ids, lambda item: NOT list_contains(
            coalesce(impressed_item_ids, []), item)))), 0)::BIGINT FROM recall
    """
    for name in ("clicked", "purchased")
}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, counts=_COUNTS)
