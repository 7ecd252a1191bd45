"""Drops, and counts, what the log tables would refuse in the tables that an adapter made."""

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from crops_jax.text import normalise_query
from data.tables import SCHEMAS, connect_duckdb
from data.tables.rules import REFERENCES, value_rules


def drop_refused(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], dict[str, dict[str, int]]]:
    """Log tables as `open_logs` takes them, and by table and reason how many rows that cost.

    Of rows with one key the first is kept; of references, those to rows that are kept themselves. Queries that log
    tables keep normalised are normalised.
    """
    kept, dropped = {}, {}
    with connect_duckdb() as connection:
        connection.create_function("normalise_query", normalise_query, ["VARCHAR"], "VARCHAR")
        for name in (name for name in SCHEMAS if name in tables):
            _load(connection, name, tables[name])
            counts = {}
            for reason, refused in refusals(name, tables[name].column_names):
                number = connection.execute(f'DELETE FROM "{name}" WHERE {refused}').fetchall()[0][0]
                if number:
                    counts[reason] = number
            if counts:
                dropped[name] = counts
            columns = ", ".join(f'"{column.name}"' for column in SCHEMAS[name].columns)
            kept[name] = connection.sql(f'SELECT {columns} FROM "{name}" ORDER BY row').to_arrow_table()
    return kept, dropped


def _load(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    schema = SCHEMAS[name]
    columns = []
    for column in schema.columns:
        present = column.name in table.column_names
        values = table.column(column.name) if present else pa.nulls(table.num_rows)
        columns.append(values.cast(column.arrow_type))
    connection.register("arriving", pa.Table.from_arrays(columns, schema=schema.arrow))
    replaced = "REPLACE (normalise_query(query) AS query)" if schema.normalised_query else ""
    connection.execute(f'CREATE TABLE "{name}" AS SELECT * {replaced}, row_number() OVER () AS row FROM arriving')
    connection.unregister("arriving")


def refusals(name: str, present: list[str]) -> Iterator[tuple[str, str]]:
    """(reason, SQL condition on a row) in the order in which they apply."""
    for rule in value_rules(SCHEMAS[name], present):
        yield f"{rule.column}: {rule.problem.format(found='value')}", rule.broken.replace('"stored ', '"')
    for table, column, owner in REFERENCES:
        if table == name:
            yield f"{column} not in {owner}", f'{column} NOT IN (SELECT {column} FROM "{owner}")'
    key = ", ".join(SCHEMAS[name].key)
    if key:
        yield f"repeated {key}", f'row NOT IN (SELECT min(row) FROM "{name}" GROUP BY {key})'
