"""Chorus: Icecat electronics products and rated queries.

Has: titles, descriptions with attributes, release dates; pairs of query and product rated by three people, a split by
query. Lacks: any log (searches, users, times, clicks, feed).
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.

Grades 0 to 3 are unchanged. published_at is the product's release date;
dates that cannot be read are left empty and counted. Prices are left out.
Files: corpus.parquet, queries.parquet, judgements.parquet.
"""

from pathlib import Path

from data.conversion.raw import Conversion, query_parquet

_COLUMNS = {
    "corpus": ("doc_id", "title", "text", "date_released"),
    "queries": ("query_id", "text"),
    "judgements": ("query_id", "doc_id", "grade", "split"),
}
_QUERIES = {
    "documents": """
        SELECT doc_id, title, nullif(text, '') AS text, TRY_CAST(date_released AS TIMESTAMPTZ) AS published_at
        FROM corpus ORDER BY row
    """,
    "judgements": """
        SELECT normalise_query(queries.text) AS query, doc_id, grade, split
        FROM judgements LEFT JOIN queries USING (query_id) ORDER BY judgements.row
    """,
    "unread": """
        SELECT count(*) AS dates FROM corpus
        WHERE trim(date_released) <> '' AND TRY_CAST(date_released AS TIMESTAMPTZ) IS NULL
    """,
}


def convert(folder: Path) -> Conversion:
    """Returns the log tables of the source's folder. Raises InputError for a missing file or column."""
    tables = query_parquet(folder, _COLUMNS, _QUERIES)
    unread = tables.pop("unread").column("dates")[0].as_py()
    left_empty = {"documents": {"published_at: value is no time": unread}} if unread else {}
    return Conversion(tables=tables, left_empty=left_empty)
