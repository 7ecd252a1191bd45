"""CSV files as tools write them: every row is read as it stands, or left out and counted, or its file is refused."""

import pytest

from crops_jax.errors import InputError
from data.conversion.streamed import RawTable, add_raw_view
from data.tables import connect_duckdb

COLUMNS = {"id": "VARCHAR", "name": "VARCHAR"}


def read(folder):
    """The rows of all CSV files of a folder as tuples, and the lines that are left out by reason."""
    with connect_duckdb() as connection:
        left_out = add_raw_view(connection, folder, "t", RawTable(files=("*.csv",), layout="csv", columns=COLUMNS))
        return connection.sql("SELECT id, name FROM t").fetchall(), left_out


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("id,name\n#1,c# #x\n2,y\n#3,z\n", [("#1", "c# #x"), ("2", "y"), ("#3", "z")]),
        ("\n\nid,name\n1,x\n", [("1", "x")]),
        ('"long\nname",id,name\n0,1,x\n', [("1", "x")]),
        (",id,,name\n0,1,9,x\n", [("1", "x")]),
        (
            'id,name\n1,27" tv\n2,"a ""b"" c"\n3,"two\nlines"\n',
            [("1", '27" tv'), ("2", 'a "b" c'), ("3", "two\nlines")],
        ),
        ("id,name\r\n1,x\r\n2,\r\n", [("1", "x"), ("2", None)]),
    ],
)
def test_rows_are_read_as_they_stand(tmp_path, text, rows):
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read(tmp_path) == (rows, {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"5", "Expected Number of Columns: 2 Found: 1"),
        (b"5,x,y", "Expected Number of Columns: 2 Found: 3"),
        (b'5,"blue" lamp', "Value with unterminated quote"),
        (b"5,caf\xe9", "Invalid unicode"),
    ],
)
def test_a_broken_line_is_left_out_and_counted_with_its_number(tmp_path, line, why):
    (tmp_path / "a.csv").write_bytes(b"id,name\n1,x\n")
    (tmp_path / "b.csv").write_bytes(b"id,name\n2,x\n" + line + b"\n3,y\n" + line + b"\n")
    rows, left_out = read(tmp_path)
    assert rows == [("1", "x"), ("2", "x"), ("3", "y")]
    ((reason, number),) = left_out.items()
    assert number == 2
    assert reason.startswith(f"no row of csv (first: b.csv, line 3: {why}")


def test_a_quote_without_an_end_is_refused_because_it_hides_rows(tmp_path):
    (tmp_path / "a.csv").write_text('id,name\n1,x\n2,"y\n3,z\n')
    with pytest.raises(InputError, match=r"a\.csv, line 3: a quoted value has no end.*correct it"):
        read(tmp_path)


def test_a_file_without_any_whole_row_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n1\n2\n")
    with pytest.raises(InputError, match=r"a\.csv is not csv or is cut off .*line 2: Expected Number of Columns"):
        read(tmp_path)


def test_other_encodings_and_mixed_ends_of_lines_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("id,name\n1,x\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"a\.csv is UTF-16; write it in UTF-8"):
        read(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"id,name\n1,x\r\n2,y\n")
    with pytest.raises(InputError, match=r"a\.csv: some lines end with a carriage return"):
        read(tmp_path)
