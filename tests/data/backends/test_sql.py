"""Names, texts and files in SQL, as DuckDB reads them."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.backends.sql import quoted_files, quoted_name, quoted_text

ODD = ["it's", 'a "b"', "''", '"', "a*b?[c]", "ä\n\\", "x'; DROP TABLE t; --"]


@pytest.mark.parametrize("value", ODD)
def test_texts_and_names_come_back_as_they_were(value):
    rows = duckdb.sql(f"SELECT {quoted_text(value)} AS {quoted_name(value)}")
    assert rows.columns == [value]
    assert rows.fetchall() == [(value,)]


@pytest.mark.parametrize("name", ["it's.parquet", "a*.parquet", "a?.parquet", "[ab].parquet", "a].parquet"])
def test_a_file_is_read_by_its_name_and_not_as_a_pattern(tmp_path, name):
    for number, file in enumerate([name, "a.parquet", "ab.parquet", "b.parquet"]):
        pq.write_table(pa.table({"number": [number]}), tmp_path / file)
    assert duckdb.sql(f"SELECT number FROM read_parquet({quoted_files([tmp_path / name])})").fetchall() == [(0,)]
    both = quoted_files([tmp_path / name, tmp_path / "b.parquet"])
    assert sorted(duckdb.sql(f"SELECT number FROM read_parquet({both})").fetchall()) == [(0,), (3,)]
