"""Several files of one raw table whose columns, types, delimiters and cases differ."""

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.conversion.streamed import RawTable, add_raw_view
from data.tables import connect_duckdb


def viewed(folder, table):
    with connect_duckdb() as connection:
        left_out = add_raw_view(connection, folder, "t", table)
        return connection.sql("SELECT * FROM t").to_arrow_table().to_pylist(), left_out


def table_of(pattern, layout, columns, **more):
    return RawTable(files=(pattern,), layout=layout, columns=columns, **more)


def test_csv_files_differ_in_columns_delimiters_and_case(tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n1,one\n")
    (tmp_path / "b.csv").write_bytes('\ufeffID;late;name\n2;x;"two; too"\n'.encode())
    (tmp_path / "c.csv").write_text("name\tid\nthree\t3\n")
    (tmp_path / "d.csv").write_text("id\n4\n")
    columns = {"id": "VARCHAR", "name": "VARCHAR", "late": "VARCHAR"}
    rows, _ = viewed(tmp_path, table_of("*.csv", "csv", columns))
    assert [tuple(row.values()) for row in rows] == [
        ("1", "one", None),
        ("2", "two; too", "x"),
        ("3", "three", None),
        ("4", None, None),
    ]


@pytest.mark.parametrize("layout", ["parquet", "feather"])
def test_typed_files_differ_in_columns_and_types(tmp_path, layout):
    write = pq.write_table if layout == "parquet" else pyarrow.feather.write_feather
    write(pa.table({"id": [1], "seconds": [3], "tags": pa.nulls(1)}), tmp_path / f"a.{layout}")
    write(pa.table({"ID": [2.0, 2.5], "tags": [["x", "y"], None]}), tmp_path / f"b.{layout}")
    write(pa.table({"id": ["three"], "seconds": [0.5], "tags": ["z"]}), tmp_path / f"c.{layout}")
    columns = {"id": "VARCHAR", "seconds": "DOUBLE", "tags": "VARCHAR"}
    rows, _ = viewed(tmp_path, table_of(f"*.{layout}", layout, columns))
    assert [tuple(row.values()) for row in rows] == [
        ("1", 3.0, None),
        ("2", None, "x y"),
        ("2.5", None, None),
        ("three", 0.5, "z"),
    ]


def test_a_day_without_rows_can_be_a_file_without_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.csv").write_text("id|name\n1|one, two\n")
    rows, _ = viewed(tmp_path, table_of("*.csv", "csv", {"id": "VARCHAR", "name": "VARCHAR"}))
    assert rows == [{"id": "1", "name": "one, two"}]


@pytest.mark.parametrize("names", [["id", "Name", "name"], ["id", "name", "name"]])
def test_a_column_that_is_there_twice_is_refused_if_it_is_read(tmp_path, names):
    (tmp_path / "a.csv").write_text(f"{','.join(names)}\n1,first,second\n")
    columns = [pa.array(["1"]), pa.array(["first"]), pa.array(["second"])]
    pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "a.parquet")
    for layout in ("csv", "parquet"):
        with pytest.raises(InputError, match=rf"a\.{layout}: column name is there more than once if case is ignored"):
            viewed(tmp_path, table_of(f"*.{layout}", layout, {"id": "VARCHAR", "name": "VARCHAR"}))
        assert viewed(tmp_path, table_of(f"*.{layout}", layout, {"id": "VARCHAR"})) == ([{"id": "1"}], {})


def test_of_two_names_the_first_with_a_value_counts_in_every_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"new": ["1"]}\n{"old": ["2"], "new": null}\n{"old": "3", "new": ["4", "5"]}\n')
    rows, _ = viewed(tmp_path, table_of("*.jsonl", "jsonl", {"new|old": "VARCHAR[]"}))
    assert [row["new"] for row in rows] == [["1"], ["2"], ["4", "5"]]


def test_a_column_of_no_file_is_missing_and_one_of_other_case_is_to_be_renamed(tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "b.csv").write_text("other\n1\n")
    with pytest.raises(InputError, match=r"a\.csv: column name is missing, it has id, other; get the file again"):
        viewed(tmp_path, table_of("*.csv", "csv", {"name": "VARCHAR"}))
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"Name": 1}\n')
    with pytest.raises(InputError, match=r"a\.jsonl: column name is missing, it has Name, x; rename Name"):
        viewed(tmp_path, table_of("*.jsonl", "jsonl", {"name": "VARCHAR"}))


def test_a_key_that_is_null_in_every_line_is_there(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2, "name": null}\n')
    rows, _ = viewed(tmp_path, table_of("*.jsonl", "jsonl", {"id": "DOUBLE", "name": "VARCHAR"}))
    assert rows == [{"id": 1.0, "name": None}, {"id": 2.0, "name": None}]


def test_lines_that_are_left_out_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\nbroken\n{"id": 2}\n')
    rows, left_out = viewed(tmp_path, table_of("*.jsonl", "jsonl", {"id": "VARCHAR"}))
    assert [row["id"] for row in rows] == ["1", "2"]
    assert left_out == {"no JSON object (first: a.jsonl, line 2)": 1}
