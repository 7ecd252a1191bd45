"""WANDS, the Wayfair Annotation Dataset: furniture and pairs labelled Exact, Partial, Irrelevant.

Has: names, classes, descriptions and features of products; labelled pairs for 480 queries.
Lacks: any log (searches, users, times, clicks, feed) and a split.
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.
Untested on the real files: the adapter follows the published schema.

Exact, Partial, Irrelevant become grades 2, 1, 0. Ratings and reviews are left out. Judgements have no split: make one
with `data.hold_out` or use them unchanged. A pair labelled twice keeps its first label.
Files (with tabs between values, although the names end in .csv): product.csv, query.csv, label.csv.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed


def _csv(name: str, *columns: str, optional: tuple[str, ...] = ()) -> RawTable:
    return RawTable(
        files=(f"{name}.csv", f"dataset/{name}.csv"),
        layout="csv",
        columns=dict.fromkeys(columns, "VARCHAR"),
        optional=dict.fromkeys(optional, "VARCHAR"),
        feeds="documents" if name == "product" else "judgements",
    )


_RAW = {
    "product": _csv(
        "product",
        "product_id",
        "product_name",
        optional=("product_class", "category hierarchy|category_hierarchy", "product_description", "product_features"),
    ),
    "query": _csv("query", "query_id", "query"),
    "label": _csv("label", "query_id", "product_id", "label"),
}
_JUDGED = "label LEFT JOIN query ON label.query_id = query.query_id"
_QUERIES = {
    "documents": """
        SELECT product_id AS doc_id, product_name AS title,
            concat_ws(chr(10), product_description, replace(product_features, '|', chr(10))) AS text,
            concat_ws(' ', product_class, replace("category hierarchy", '/', ' ')) AS keywords
        FROM product
    """,
    "judgements": """
        SELECT query.query AS query, product_id AS doc_id,
            CASE label.label WHEN 'Exact' THEN 2 WHEN 'Partial' THEN 1 WHEN 'Irrelevant' THEN 0 END AS grade
        FROM (SELECT *, row_number() OVER () AS place FROM label) AS label
            LEFT JOIN query ON label.query_id = query.query_id
        WHERE query.query IS NOT NULL ORDER BY place
    """,
}
_COUNTS = {("judgements", "query not in query.csv"): f"SELECT count(*) FROM {_JUDGED} WHERE query.query IS NULL"}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES, counts=_COUNTS)
