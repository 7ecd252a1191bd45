"""Tables in the types and files that writers make of them: what readers get, and what the outcome says."""

import datetime
import decimal
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError, InputErrors
from data.tables import copy_table, open_logs
from tests.data.tables.test_log_tables import NOON, tables, write

SECONDS = int(NOON.timestamp())


def put(folder, name, *files):
    """Writes the files of a table in place of its single file."""
    (folder / f"{name}.parquet").unlink()
    (folder / name).mkdir()
    for number, file in enumerate(files):
        pq.write_table(file if isinstance(file, pa.Table) else pa.table(file), folder / name / f"{number}.parquet")
    return folder


def cast(table, **types):
    for name, kind in types.items():
        values = pa.nulls(len(table)) if pa.types.is_null(kind) else table[name].cast(kind)
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


CANDIDATES = pa.table(tables()["candidates"])
SEARCHES = pa.table(tables()["searches"])
DIFFERING = {
    "units of time": ("searches", cast(SEARCHES[:1], time=pa.timestamp("ms", "UTC")), SEARCHES[1:], "time"),
    "zones": ("searches", cast(SEARCHES[:1], time=pa.timestamp("us", "Asia/Shanghai")), SEARCHES[1:], "time"),
    "time as text": ("searches", {**SEARCHES[:1].to_pydict(), "time": [NOON.isoformat()]}, SEARCHES[1:], "time"),
    "gaps are doubles": ("candidates", cast(CANDIDATES[:1], position=pa.float64()), CANDIDATES[1:], "position"),
    "widths": ("candidates", cast(CANDIDATES[:1], position=pa.int8()), CANDIDATES[1:], "position"),
    "nulls": ("candidates", CANDIDATES[:1], cast(CANDIDATES[1:], watch_seconds=pa.null()), "watch_seconds"),
    "later": ("candidates", CANDIDATES[:1], CANDIDATES[1:].drop_columns("watch_seconds"), "watch_seconds"),
    "ids": (
        "searches",
        SEARCHES[:1],
        cast(SEARCHES.set_column(1, "user_id", pa.array(["1", "7"]))[1:], user_id=pa.int32()),
        "user_id",
    ),
}


@pytest.mark.parametrize("case", DIFFERING)
def test_files_of_one_table_may_differ(tmp_path, case):
    name, first, second, column = DIFFERING[case]
    logs = open_logs(put(write(tmp_path, tables()), name, first, second))
    expected = open_logs(write(tmp_path / "same", tables())).read(name).to_pylist()
    if case == "ids":
        expected[1]["user_id"] = "7"
    assert logs.read(name).to_pylist() == expected
    assert logs.connect().table(name).to_pyarrow().to_pylist() == expected
    assert list(logs.outcome["read_as"]) == [name]
    assert list(logs.outcome["read_as"][name]) == [column]


@pytest.mark.parametrize("names", [SEARCHES.column_names, ["search_id"], []])
def test_a_file_without_rows_may_have_any_columns_and_types(tmp_path, names):
    logs = open_logs(put(write(tmp_path, tables()), "searches", {name: pa.nulls(0) for name in names}, SEARCHES))
    assert logs.read("searches").num_rows == 2
    assert logs.outcome == {}
    assert len(logs.files("searches")) == 2
    (tmp_path / "copied").mkdir()
    for table in logs.names:
        copy_table(logs, table, tmp_path / "copied")
    assert open_logs(tmp_path / "copied").read("searches").equals(logs.read("searches"))


def test_rows_keep_the_order_of_the_files(tmp_path):
    content = tables()
    del content["judgements"], content["feed_views"]
    logs = write(tmp_path, content)
    rows = 100_000
    files = []
    for number in range(4):
        ids = np.arange(number * rows, (number + 1) * rows)
        files.append({"doc_id": ids if number % 2 else ids.astype(str), "title": ids.astype(str)})
    put(logs, "documents", *files, {"doc_id": ["d1", "d2", "d3"], "title": ["", "", ""]})
    ids = open_logs(logs).read("documents", ["doc_id"])["doc_id"].to_pylist()
    assert ids == [*map(str, range(4 * rows)), "d1", "d2", "d3"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, 2**63 - 1, -3]), ["1", "9223372036854775807", "-3"]),
        (pa.array([1, 2**64 - 1, 3], pa.uint64()), ["1", "18446744073709551615", "3"]),
        (pa.array([1.0, 2.0**53 - 1, 0.0]), ["1", "9007199254740991", "0"]),
        (pa.array([decimal.Decimal(10**37), decimal.Decimal(2), decimal.Decimal(3)]), [str(10**37), "2", "3"]),
        (
            pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00"), decimal.Decimal("3.00")]),
            ["1.50", "2.00", "3.00"],
        ),
        (pa.array([uuid.UUID(int=i).bytes for i in (1, 2, 3)], pa.uuid()), [str(uuid.UUID(int=i)) for i in (1, 2, 3)]),
        (pa.array([7, 8, 9]).dictionary_encode(), ["7", "8", "9"]),
    ],
    ids=str,
)
def test_ids_become_their_text(tmp_path, values, texts):
    content = {"documents": {"doc_id": values, "title": values}, "judgements": {"query": ["a"] * 3, "doc_id": texts}}
    content["judgements"]["grade"] = [1, 1, 1]
    logs = open_logs(write(tmp_path, content))
    assert logs.read("documents").select(["doc_id", "title"]).to_pydict() == {"doc_id": texts, "title": texts}
    assert logs.connect().table("documents").title.to_pyarrow().to_pylist() == texts
    assert set(logs.outcome["read_as"]["documents"]) == {"doc_id", "title"}


def test_flags_dates_epochs_and_lists(tmp_path):
    content = tables()
    positions = pa.array([decimal.Decimal(1), None, None], pa.decimal128(5, 0))
    content["candidates"] |= {"clicked": [1, 0, None], "liked": [0.0, 1.0, None], "position": positions}
    content["documents"] |= {"keywords": [["red", None, "shoe"], [], None], "text": pa.array([["a"], ["b"], ["c d"]])}
    content["documents"]["published_at"] = [datetime.date(2024, 5, 31), None, datetime.date(1969, 12, 31)]
    content["searches"]["time"] = [SECONDS, SECONDS + 40]
    logs = open_logs(write(tmp_path, content))
    candidates = logs.read("candidates").to_pydict()
    assert (candidates["clicked"], candidates["liked"]) == ([True, False, None], [False, True, None])
    assert candidates["position"] == [1, None, None]
    documents = logs.read("documents").to_pydict()
    assert (documents["keywords"], documents["text"]) == (["red shoe", "", None], ["a", "b", "c d"])
    assert documents["published_at"] == [
        datetime.datetime(2024, 5, 31, tzinfo=datetime.UTC),
        None,
        datetime.datetime(1969, 12, 31, tzinfo=datetime.UTC),
    ]
    assert logs.read("searches")["time"].to_pylist() == [NOON, NOON + datetime.timedelta(seconds=40)]
    assert logs.outcome["read_as"] == {
        "documents": {
            "text": "list<element: string> read as text",
            "keywords": "list<element: string> read as text",
            "published_at": "date32[day] read as timestamp[us, tz=UTC]",
        },
        "searches": {"time": "int64 read as timestamp[us, tz=UTC]"},
        "candidates": {"clicked": "int64 read as bool", "liked": "double read as bool"},
    }


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.uint64()])
def test_units_of_epochs_are_told_by_size(tmp_path, unit, kind):
    # numpy converts what is beyond the whole numbers that a double certainly holds.
    times = pa.array(np.array([SECONDS * unit, (SECONDS + 1) * unit]).astype(kind.to_pandas_dtype()))
    content = {"documents": {"doc_id": ["a", "b"], "title": ["a", "b"], "published_at": times}}
    content["judgements"] = {"query": ["a"], "doc_id": ["a"], "grade": [1]}
    if unit == 10**9 and pa.types.is_floating(kind):
        with pytest.raises(InputError, match=r"column published_at: .*row 0 .* is no time"):
            open_logs(write(tmp_path, content))
        return
    read = open_logs(write(tmp_path, content)).read("documents")["published_at"].to_pylist()
    assert read == [NOON, NOON + datetime.timedelta(seconds=1)]


def test_whole_decimals_are_epochs_and_digits_of_dates_are_not(tmp_path):
    content = {"documents": {"doc_id": ["a"], "title": ["a"]}}
    content["judgements"] = {"query": ["a"], "doc_id": ["a"], "grade": [1]}
    content["documents"]["published_at"] = pa.array([decimal.Decimal(SECONDS)], pa.decimal128(38, 0))
    assert open_logs(write(tmp_path, content)).read("documents")["published_at"].to_pylist() == [NOON]
    for number in (20240531120000, 20240531120000123, 4102444800):
        content["documents"]["published_at"] = [number]
        with pytest.raises(InputError, match=rf'"{number}" is no time; .* an epoch from 2000 to 2099'):
            open_logs(write(tmp_path, content))
    content["documents"]["published_at"] = pa.array([decimal.Decimal(f"{SECONDS}.5")], pa.decimal128(38, 1))
    with pytest.raises(InputError, match=r"holds it as decimal128\(38, 1\)"):
        open_logs(write(tmp_path, content))


def test_names_that_differ_in_case_are_taken_and_said(tmp_path):
    content = tables()
    content["candidates"]["Clicked"] = content["candidates"].pop("clicked")
    content["searches"]["USER_ID"] = content["searches"].pop("user_id")
    logs = open_logs(write(tmp_path, content))
    assert logs.read("candidates")["clicked"].to_pylist() == [True, None, None]
    assert logs.outcome["read_as"] == {
        "searches": {"user_id": "read from USER_ID"},
        "candidates": {"clicked": "read from Clicked"},
    }
    content["searches"]["userId"] = content["searches"].pop("USER_ID")
    with pytest.raises(InputError, match=r"column user_id: missing from .*; rename userId"):
        open_logs(write(tmp_path, content))


def test_problems_of_all_tables_are_shown_at_once(tmp_path):
    content = tables()
    del content["searches"]["user_id"]
    content["searches"]["time"] = [True, False]
    content["documents"]["title"] = ["a", None, "c"]
    content["feed_views"]["watch_seconds"] = [-1.0, 1.0]
    content["feed_views"]["doc_id"] = ["d1", "d9"]
    content["judgements"]["grade"] = ["good", "bad"]
    with pytest.raises(InputErrors) as refused:
        open_logs(write(tmp_path, content))
    parts = [
        ("table searches, column user_id: missing",),
        ("table searches, column time:", "bool"),
        ("table judgements, column grade:", "string"),
        ("table documents, column title:", "row 1", "null"),
        ("table feed_views, column watch_seconds:", "row 0", "-1"),
        ("table feed_views, column doc_id:", "row 1", '"d9" is not in table documents'),
    ]
    found = refused.value.problems
    assert len(found) == len(parts)
    for problem, words in zip(found, parts, strict=True):
        assert all(word in problem for word in words), problem
    assert all(problem in str(refused.value) for problem in found)


def test_equal_problems_of_many_files_are_one(tmp_path):
    wrong = SEARCHES.drop_columns("query")
    with pytest.raises(InputErrors) as refused:
        open_logs(put(write(tmp_path, tables()), "searches", wrong, SEARCHES, wrong, wrong))
    (problem,) = refused.value.problems
    assert problem.endswith("(2 further files alike)")
    assert "0.parquet" in problem


def test_rows_of_files_that_differ_are_set_aside(tmp_path):
    content = tables()
    del content["feed_views"]
    logs = write(tmp_path, content)
    put(
        logs,
        "candidates",
        CANDIDATES[:1],
        cast(CANDIDATES[1:], clicked=pa.int8()),
        {**CANDIDATES[:2].to_pydict(), "search_id": ["s2", "s2"], "clicked": [2, 1]},
    )
    opened = open_logs(logs, on_bad_rows="quarantine")
    assert opened.quarantined == {"candidates": {"clicked: value is no flag": 1}}
    assert opened.read("candidates", ["search_id", "doc_id"]).to_pylist() == [
        {"search_id": "s1", "doc_id": "d1"},
        {"search_id": "s1", "doc_id": "d2"},
        {"search_id": "s2", "doc_id": "d3"},
        {"search_id": "s2", "doc_id": "d2"},
    ]
    assert opened.connect().table("candidates").count().to_pyarrow().as_py() == 4
