"""ESCI, the Amazon Shopping Queries Data Set: products, and pairs labelled Exact, Substitute, Complement, Irrelevant.

Has: titles, descriptions, bullet points, brands and colours of products; labelled pairs in three languages, a split.
Lacks: any log (searches, users, times, clicks, feed).
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.
Tested on sample rows (it also reads the shorter column names of the sample).

E, S, C, I become grades 3, 2, 1, 0. A document's id is locale:product_id, because a product has a page in each country.
Descriptions keep their HTML. The pairs of the small and of the large version are all used.
Files: shopping_queries_dataset_examples.parquet, shopping_queries_dataset_products.parquet; or examples_sample.parquet
and products_sample.parquet.
"""

from pathlib import Path

from data.conversion.streamed import RawTable, Streamed

RELEVANT_GRADE = 3.0
"""The minimum grade of a relevant product: Exact. A substitute does not meet all of the query."""

_RAW = {
    "products": RawTable(
        files=("shopping_queries_dataset_products*.parquet", "products_sample.parquet"),
        layout="parquet",
        columns={"product_id": "VARCHAR", "product_title|title": "VARCHAR", "product_locale|locale": "VARCHAR"},
        optional={
            "product_description|description": "VARCHAR",
            "product_bullet_point|bullets": "VARCHAR",
            "product_brand|brand": "VARCHAR",
            "product_color|color": "VARCHAR",
        },
    ),
    "examples": RawTable(
        files=("shopping_queries_dataset_examples*.parquet", "examples_sample.parquet"),
        layout="parquet",
        columns=dict.fromkeys(("query", "product_id", "product_locale", "esci_label", "split"), "VARCHAR"),
    ),
}
_QUERIES = {
    "documents": """
        SELECT product_locale || ':' || product_id AS doc_id, product_title AS title,
            concat_ws(chr(10), product_bullet_point, product_description) AS text,
            concat_ws(' ', product_brand, product_color) AS keywords
        FROM products
    """,
    "judgements": """
        SELECT query, product_locale || ':' || product_id AS doc_id, CASE left(upper(trim(esci_label)), 1)
            WHEN 'E' THEN 3 WHEN 'S' THEN 2 WHEN 'C' THEN 1 WHEN 'I' THEN 0 END AS grade, split
        FROM examples
    """,
}


def convert(folder: Path) -> Streamed:
    """Returns the log tables of the source's folder, as queries over its files."""
    return Streamed(folder=folder, raw=_RAW, queries=_QUERIES)
