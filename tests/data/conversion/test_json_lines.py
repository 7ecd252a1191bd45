"""JSON Lines as tools write them: keys of later lines, wrappers, byte order marks, broken lines."""

import gzip
import json

import pytest

from crops_jax.errors import InputError
from data.conversion.json_lines import json_keys, json_objects, load_json_lines
from data.tables import connect_duckdb

LINES = [
    '\ufeff{"id": 1, "tags": ["a", 2, null], "nested": {"key": "x"}}',
    "",
    '{"_source": {"id": 12345678901234567890123, "flag": true, "a.b": "flat"}, "_index": "i"}',
    '{"id": "half \\ud83d"}',
    "[1]",
    '{"id": "whole \\ud83d\\ude00", "nested": {"key": null}, "later": {"of": 1}}',
    '{"id": ',
]


def loaded(files, columns):
    with connect_duckdb() as connection:
        left_out = load_json_lines(connection, '"t"', files, columns)
        listed = ", ".join(f'"{column}"' for column in columns)
        kept = connection.sql(f"SELECT file, line, {listed} FROM t WHERE broken IS NULL ORDER BY file, line")
        return kept.fetchall(), left_out


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_every_line_is_read_and_what_is_broken_is_counted_with_its_line(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    content = "\n".join(LINES).encode() + b'\n{"id": "caf\xe9"}\n'
    file.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    columns = {"id": "VARCHAR", "tags": "VARCHAR", "nested.key": "VARCHAR", "a.b": "VARCHAR", "flag": "BOOLEAN"}
    rows, left_out = loaded([file], columns)
    assert rows == [
        (0, 1, "1", "a 2", "x", None, None),
        (0, 3, "12345678901234567890123", None, None, "flat", "true"),
        (0, 6, "whole 😀", None, None, None, None),
    ]
    assert left_out == {f"no JSON object (first: a.{ending}, line 4)": 4}


def test_keys_of_the_second_file_are_keys_of_the_input(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"_source": {"id": 2, "late": ["x"]}}\n')
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert loaded(files, {"late": "VARCHAR[]"}) == ([(0, 1, None), (1, 1, '["x"]')], {})
    with connect_duckdb() as connection:
        assert set(json_keys(connection, files)) == {"id", "_source", "late"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"id": 1\n[2]\n', r"a\.jsonl is not jsonl or is cut off \(line 1 is no JSON object"),
        ('{"id": "é"}\n'.encode("latin-1"), "line 1 is no UTF-8"),
        ('{"id": 1}\n'.encode("utf-16"), r"a\.jsonl is UTF-16; write it in UTF-8"),
    ],
)
def test_a_file_without_any_object_is_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        loaded([tmp_path / "a.jsonl"], {"id": "VARCHAR"})


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}\n' * 999)[:-9])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz is damaged or cut off"):
        loaded([tmp_path / "a.jsonl.gz"], {"id": "VARCHAR"})


def test_objects_are_the_lines_that_the_table_has(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    left_out = {}
    found = dict(json_objects(tmp_path / "a.jsonl", left_out))
    rows, _ = loaded([tmp_path / "a.jsonl"], {"id": "VARCHAR"})
    assert list(found) == [line for _, line, _ in rows]
    assert sorted(left_out) == [4, 5, 7]
    assert found[1] == json.loads(LINES[0].removeprefix("\ufeff"))
