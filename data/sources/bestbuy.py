"""Best Buy mobile web site, Xbox 360 games (ACM SF Bay Area data mining hackathon, 2012): clicks and a catalogue.

Has: user, query, time of the query, products clicked after it; names and descriptions of the products.
Lacks: result lists, positions, searches without a click, documents that were not clicked, watch time, feed, grades.
It feeds the search log (clicks only; no negatives) and the query level (the same user's next query).

A search is one (user, query, query_time); its clicked products become candidates that were shown and clicked.
A document's title is the product's name, its text the short and the long description. Prices, ranks and reviews of
the catalogue are later than every click and are left out. Times have no zone in the source and are read as UTC.
Files: clicks.parquet, catalog.parquet.
"""

from pathlib import Path

from data.conversion.raw import Conversion, query_parquet

_COLUMNS = {
    "clicks": ("user", "sku", "query", "query_time"),
    "catalog": ("sku", "name", "short_description", "long_description"),
}

# Searches are numbered in the order of their first row in the source.
_SEARCHES = """
    SELECT "user" AS user_id, query, query_time, min(row) AS row,
        'search' || row_number() OVER (ORDER BY min(row)) AS search_id
    FROM clicks GROUP BY ALL
"""
_QUERIES = {
    "documents": """
        SELECT sku AS doc_id, name AS title, concat_ws(' ', short_description, long_description) AS text
        FROM catalog ORDER BY row
    """,
    "searches": f"""
        SELECT search_id, user_id, query, CAST(query_time AS TIMESTAMPTZ) AS time FROM ({_SEARCHES}) ORDER BY row
    """,
    "candidates": f"""
        SELECT search_id, sku AS doc_id, 'shown' AS stage, true AS clicked
        FROM clicks JOIN ({_SEARCHES}) AS searches
            ON clicks."user" = user_id AND clicks.query = searches.query AND clicks.query_time = searches.query_time
        ORDER BY clicks.row
    """,
}


def convert(folder: Path) -> Conversion:
    """Returns the log tables of the source's folder. Raises InputError for a missing file or column."""
    return Conversion(tables=query_parquet(folder, _COLUMNS, _QUERIES))
