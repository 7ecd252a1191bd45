"""Home Depot product search relevance (Kaggle, 2016): products and graded pairs.

Has: product titles, pairs of query and product with the mean of at least three raters, a split by query.
Lacks: any log (searches, users, times, clicks, feed) and the products' descriptions.
So no perspective can be mined; its judgements become labels with `data.mine --judgements-as-labels`.

The source's 1 (not relevant), 2 (partly), 3 (perfect) and the means between become grade = source - 1, two decimals:
0, .33, .67, 1, 1.33, 1.67, 2. So 0 is irrelevant, as everywhere in the log tables, and the gain of a ranking is the
grade. (A source grade of at least 2.33 is a grade of at least 1.33.)
Files: corpus.parquet, queries.parquet, judgements.parquet.
"""

from pathlib import Path

from data.conversion.raw import Conversion, query_parquet

RELEVANT_GRADE = 1.33
"""The minimum grade of a relevant product: nearer to perfect than to not relevant (2.33 in the source)."""

_COLUMNS = {
    "corpus": ("doc_id", "title"),
    "queries": ("query_id", "text"),
    "judgements": ("query_id", "doc_id", "grade", "split"),
}
_QUERIES = {
    "documents": "SELECT doc_id, title FROM corpus ORDER BY row",
    "judgements": """
        SELECT normalise_query(queries.text) AS query, doc_id, round(grade - 1, 2) AS grade, split
        FROM judgements LEFT JOIN queries USING (query_id) ORDER BY judgements.row
    """,
}


def convert(folder: Path) -> Conversion:
    """Returns the log tables of the source's folder. Raises InputError for a missing file or column."""
    return Conversion(tables=query_parquet(folder, _COLUMNS, _QUERIES))
