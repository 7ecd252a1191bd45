"""Rows set aside instead of refused: which, why, where they go, and that nobody reads them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.artifacts import content_fingerprint, output_directory, read_manifest
from crops_jax.errors import InputError
from data.tables import copy_table, open_logs
from data.tables.quarantine import COLUMNS, beside

NOON = "2024-05-31T12:00:00Z"


def dirty_tables() -> dict[str, dict[str, list]]:
    """Every table has rows that are right and rows that break one rule each."""
    return {
        "documents": {
            "doc_id": ["d1", "d2", "d1", " ", "d5", "d6"],
            "title": ["one", "two", "one again", "nameless", None, "six"],
        },
        "searches": {
            "search_id": ["s1", "s2", "s3", "s1", "s4", "s5"],
            "user_id": ["u1", "u1", "u2", "u3", "u4", "u5"],
            "query": ["Red  Shoe", "tie", "\u3000", "again", "b\0c", "hat"],
            "time": [NOON, "31.5.2024", NOON, NOON, NOON, NOON],
        },
        "candidates": {
            "search_id": ["s1", "s1", "s2", "s9", "s5", "s5", "s5", "s1"],
            "doc_id": ["d1", "d1", "d1", "d1", "d5", "d7", "d6", "d2"],
            "stage": ["shown", "ranked_not_shown", "shown", "shown", "shown", "shown", "seen", "shown"],
            "watch_seconds": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, float("nan")],
        },
        "feed_views": {"user_id": ["u1", None], "doc_id": ["d2", "d2"], "time": [NOON, NOON]},
        "judgements": {"query": ["Hat", "hat", "hat"], "doc_id": ["d1", "d1", "gone"], "grade": [1.0, 2.0, -1.0]},
        "knowledge_documents": {
            "query": ["HAT", "hat"],
            "doc_id": ["k1", "d2"],
            "title": ["a", "b"],
            "text": ["a", "b"],
            "model": ["m", "m"],
            "prompt_sha256": ["0", "0"],
        },
    }


COUNTS = {
    "documents": {
        "doc_id: an empty id": 1,
        "doc_id: repeats the key of an earlier row": 1,
        "title: null in a required column": 1,
    },
    "searches": {
        "query: a NUL character in value": 1,
        "query: an empty query (value)": 1,
        "search_id: repeats the key of an earlier row": 1,
        "time: value is no time": 1,
    },
    "candidates": {
        "doc_id: not in documents": 1,
        "doc_id: set aside in documents": 1,
        "search_id and doc_id: repeats the key of an earlier row": 1,
        "search_id: not in searches": 1,
        "search_id: set aside in searches": 1,
        "stage: unknown stage value": 1,
        "watch_seconds: value is not a finite number of at least 0": 1,
    },
    "feed_views": {"user_id: null in a required column": 1},
    "judgements": {
        "grade: value is not a finite number of at least 0": 1,
        "query and doc_id: repeats the key of an earlier row": 1,
    },
    "knowledge_documents": {"doc_id: in documents too": 1},
}


def write(directory, content):
    directory.mkdir(parents=True, exist_ok=True)
    for name, columns in content.items():
        pq.write_table(pa.table(columns), directory / f"{name}.parquet")
    return directory


@pytest.fixture
def opened(tmp_path):
    logs = write(tmp_path / "logs", dirty_tables())
    return open_logs(logs, on_bad_rows="quarantine", quarantine=beside(tmp_path / "labels"))


def test_every_bad_row_is_counted_once_by_table_and_reason(opened, tmp_path):
    assert opened.quarantined == COUNTS
    assert opened.outcome == {"quarantined": COUNTS, "quarantine": str(tmp_path / "labels.quarantine")}


def test_neither_read_nor_views_hold_a_row_that_was_set_aside(opened):
    kept = {
        "documents": [("d1", "one"), ("d2", "two"), ("d6", "six")],
        "searches": [("s1", "Red  Shoe"), ("s5", "hat")],
        "candidates": [("s1", "d1", "shown")],
        "feed_views": [("u1", "d2")],
        "judgements": [("hat", "d1", 1.0)],
        "knowledge_documents": [("hat", "k1")],
    }
    connection = opened.connect()
    for name, rows in kept.items():
        columns = {
            "documents": ["doc_id", "title"],
            "searches": ["search_id", "query"],
            "candidates": ["search_id", "doc_id", "stage"],
            "feed_views": ["user_id", "doc_id"],
            "judgements": ["query", "doc_id", "grade"],
            "knowledge_documents": ["query", "doc_id"],
        }[name]
        assert [tuple(row.values()) for row in opened.read(name, columns).to_pylist()] == rows
        viewed = connection.table(name).select(columns).order_by(columns).to_pyarrow().to_pylist()
        assert [tuple(row.values()) for row in viewed] == sorted(rows)
        assert opened.num_rows(name) == len(rows)
        assert connection.table(name).columns == tuple(opened.read(name).column_names)


def test_set_aside_rows_lie_beside_the_output_with_place_reason_and_value(opened, tmp_path):
    folder = tmp_path / "labels.quarantine"
    assert sorted(file.stem for file in folder.glob("*.parquet")) == sorted(COUNTS)
    found = pq.read_table(folder / "candidates.parquet")
    assert tuple(found.column_names) == COLUMNS
    assert set(found["table"].to_pylist()) == {"candidates"}
    assert set(found["file"].to_pylist()) == {str(tmp_path / "logs" / "candidates.parquet")}
    assert found.select(["row", "column", "value"]).to_pylist() == [
        {"row": 1, "column": "search_id and doc_id", "value": "search_id s1, doc_id d1"},
        {"row": 2, "column": "search_id", "value": "s2"},
        {"row": 3, "column": "search_id", "value": "s9"},
        {"row": 4, "column": "doc_id", "value": "d5"},
        {"row": 5, "column": "doc_id", "value": "d7"},
        {"row": 6, "column": "stage", "value": "seen"},
        {"row": 7, "column": "watch_seconds", "value": "nan"},
    ]
    manifest = read_manifest(folder)
    assert manifest["kind"] == "quarantine"
    assert manifest["quarantined"] == COUNTS
    assert manifest["fingerprint"] == content_fingerprint(folder)


def test_the_same_rows_give_the_same_bytes_and_an_earlier_quarantine_is_replaced_or_removed(opened, tmp_path):
    folder = tmp_path / "labels.quarantine"
    first = content_fingerprint(folder)
    open_logs(tmp_path / "logs", on_bad_rows="quarantine", quarantine=folder)
    assert content_fingerprint(folder) == first
    clean = write(tmp_path / "clean", {name: column for name, column in dirty_tables().items() if name == "documents"})
    pq.write_table(pa.table({"doc_id": ["d1"], "title": ["one"]}), clean / "documents.parquet")
    pq.write_table(pa.table({"query": ["a"], "doc_id": ["d1"], "grade": [1]}), clean / "judgements.parquet")
    logs = open_logs(clean, on_bad_rows="quarantine", quarantine=folder)
    assert not folder.exists()
    assert (logs.quarantined, logs.quarantine, logs.outcome) == ({}, None, {})


def test_what_is_no_quarantine_is_not_replaced(tmp_path):
    logs = write(tmp_path / "logs", dirty_tables())
    with output_directory(
        tmp_path / "a.quarantine", overwrite=False, program="x", kind="labels", arguments={}, inputs={}
    ) as out:
        (out / "labels.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.quarantine .*something else"):
        open_logs(logs, on_bad_rows="quarantine", quarantine=tmp_path / "a.quarantine")


def test_without_a_place_rows_are_left_out_and_counted(tmp_path):
    logs = open_logs(write(tmp_path / "logs", dirty_tables()), on_bad_rows="quarantine")
    assert logs.quarantined == COUNTS
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["logs"]


def test_by_default_the_first_bad_row_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"table documents, column doc_id: .*row 3"):
        open_logs(write(tmp_path / "logs", dirty_tables()))


@pytest.mark.parametrize(
    ("table", "columns", "reason"),
    [
        ("documents", {"doc_id": [None, ""]}, "null in a required column"),
        ("candidates", {"search_id": ["s9"] * 8}, "not in searches"),
        ("searches", {"time": ["never"] * 6}, "is no time"),
    ],
)
def test_a_required_table_of_which_nothing_is_left_is_refused(tmp_path, table, columns, reason):
    content = dirty_tables()
    rows = len(next(iter(columns.values())))
    content[table] = {name: values[:rows] for name, values in content[table].items()} | columns
    with pytest.raises(InputError, match=f"table {table}: no row of .*{reason}"):
        open_logs(write(tmp_path / "logs", content), on_bad_rows="quarantine", quarantine=tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_damage_to_a_file_is_no_matter_of_rows(tmp_path):
    logs = write(tmp_path / "logs", dirty_tables())
    whole = (logs / "searches.parquet").read_bytes()
    (logs / "searches.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not a Parquet file or is cut off"):
        open_logs(logs, on_bad_rows="quarantine", quarantine=tmp_path / "q")
    content = dirty_tables()
    del content["searches"]["user_id"]
    with pytest.raises(InputError, match="column user_id: missing"):
        open_logs(write(tmp_path / "b", content), on_bad_rows="quarantine", quarantine=tmp_path / "q")


def test_statistics_of_row_groups_hide_no_bad_value(tmp_path):
    # Parquet statistics leave NaN out: a filter on them would skip the second row group.
    content = dirty_tables()
    grades = [1.0] * 6 + [1.0, 1.0, float("nan")]
    judged = pa.table({"query": [f"q{i}" for i in range(9)], "doc_id": ["d1"] * 9, "grade": grades})
    logs = write(tmp_path / "logs", content)
    pq.write_table(judged, logs / "judgements.parquet", row_group_size=3)
    opened = open_logs(logs, on_bad_rows="quarantine")
    assert opened.quarantined["judgements"] == {"grade: value is not a finite number of at least 0": 1}
    assert opened.read("judgements", ["grade"])["grade"].to_pylist() == [1.0] * 8


def test_first_of_a_key_is_the_first_in_the_order_of_the_files(tmp_path):
    logs = write(tmp_path / "logs", {"judgements": {"query": ["a"], "doc_id": ["d1"], "grade": [1]}})
    # As strings "b-c/..." stands before "b/...", as paths after it.
    for folder, title in (("b", "second"), ("b-c", "first")):
        (logs / "documents" / folder).mkdir(parents=True)
        table = pa.table({"doc_id": ["d1", folder], "title": [title, folder]})
        pq.write_table(table, logs / "documents" / folder / "part.parquet")
    opened = open_logs(logs, on_bad_rows="quarantine")
    assert opened.read("documents", ["title"])["title"].to_pylist() == ["first", "b-c", "b"]


def test_a_copied_table_holds_what_is_left_and_is_opened_without_a_complaint(opened, tmp_path):
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in opened.names:
        copy_table(opened, name, copied)
    again = open_logs(copied)
    for name in opened.names:
        assert again.read(name).equals(opened.read(name))


def test_a_copied_table_without_bad_rows_is_the_same_bytes(tmp_path):
    logs = write(tmp_path / "logs", {"judgements": {"query": ["a"], "doc_id": ["d1"], "grade": [1]}})
    (logs / "documents").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"doc_id": [name], "title": [name]}), logs / "documents" / f"{name}.parquet")
    (tmp_path / "out").mkdir()
    opened = open_logs(logs, on_bad_rows="quarantine", quarantine=tmp_path / "q")
    copy_table(opened, "documents", tmp_path / "out")
    copy_table(opened, "judgements", tmp_path / "out")
    assert (tmp_path / "out/documents/00001.parquet").read_bytes() == (logs / "documents/b.parquet").read_bytes()
    assert (tmp_path / "out/judgements.parquet").read_bytes() == (logs / "judgements.parquet").read_bytes()


def with_bytes(values):
    """A column of text that has some bytes that are not UTF-8."""
    return pa.array(values, pa.binary()).view(pa.string())


def write_texts_that_are_not_utf8(directory):
    tables = {
        "documents": {
            "doc_id": ["d1", "d2", "d3", "d4"],
            "title": with_bytes([b"one", b"\xff\xfe two", "dreißig".encode(), None]),
            "text": with_bytes([None, b"\xc3\x28", b"three", b"four"]),
        },
        "searches": {
            "search_id": ["s1", "s2"],
            "user_id": ["u1", "u1"],
            "query": with_bytes([b"red shoe", b"caf\xe9"]),
            "time": [NOON, NOON],
        },
        "candidates": {
            "search_id": ["s1", "s2", "s1"],
            "doc_id": ["d1", "d3", "d2"],
            "stage": ["shown", "shown", "shown"],
            "watch_seconds": [1.0, 1.0, 1.0],
        },
    }
    return write(directory, tables)


def test_rows_with_texts_that_are_not_utf8_are_set_aside(tmp_path):
    logs = write_texts_that_are_not_utf8(tmp_path / "logs")
    with pytest.raises(InputError, match=r"row 1 \(counted from 0\): the text .* is not UTF-8; .* quarantine"):
        open_logs(logs)
    opened = open_logs(logs, on_bad_rows="quarantine", quarantine=beside(tmp_path / "labels"))
    assert opened.quarantined == {
        "documents": {"title: not UTF-8": 1, "title: null in a required column": 1},
        "searches": {"query: not UTF-8": 1},
        "candidates": {"doc_id: set aside in documents": 1, "search_id: set aside in searches": 1},
    }
    assert opened.read("documents", ["doc_id", "title", "text"]).to_pylist() == [
        {"doc_id": "d1", "title": "one", "text": None},
        {"doc_id": "d3", "title": "dreißig", "text": "three"},
    ]
    connection = opened.connect()
    assert connection.table("searches").query.to_pyarrow().to_pylist() == ["red shoe"]
    assert connection.table("candidates").count().to_pyarrow().as_py() == 1
    found = pq.read_table(tmp_path / "labels.quarantine" / "documents.parquet").select(
        ["file", "row", "column", "value"]
    )
    file = str(logs / "documents.parquet")
    assert found.select(["file", "row", "column", "value"]).to_pylist() == [
        {"file": file, "row": 1, "column": "title", "value": "b'\\xff\\xfe two'"},
        {"file": file, "row": 3, "column": "title", "value": None},
    ]
    (tmp_path / "copy").mkdir()
    copy_table(opened, "documents", tmp_path / "copy")
    assert pq.read_table(tmp_path / "copy" / "documents.parquet")["doc_id"].to_pylist() == ["d1", "d3"]


def test_a_file_that_is_damaged_otherwise_is_refused_in_quarantine_too(tmp_path):
    logs = write_texts_that_are_not_utf8(tmp_path / "logs")
    whole = (logs / "searches.parquet").read_bytes()
    (logs / "searches.parquet").write_bytes(whole[:8] + bytes(40) + whole[48:])
    with pytest.raises(InputError, match="table searches"):
        open_logs(logs, on_bad_rows="quarantine")
