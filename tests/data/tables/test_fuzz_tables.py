"""Log tables with broken values, columns, types and bytes: refused, or read to the last row that is right.

The oracle below is written from the table of docs/logs.md, over plain Python rows, and knows nothing of DuckDB.
"""

import datetime
import itertools
import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from data.tables import SCHEMAS, LogTables, open_logs
from data.tables.quarantine import COLUMNS
from tests import fuzzing
from tests.fuzzing import ACCEPTED, REFUSED

Row = dict[str, Any]
Tables = dict[str, list[Row]]

_STAGES = ["filtered_before_ranking", "ranked_not_shown", "shown"]
# Text that is a time, and text that is none.
_TIMES = ["2024-05-31T12:00:00Z", "2024-05-31 12:00:00.123456+02:00", "2024-02-29", " 1999-12-31T23:59 ", "0001-01-01"]
_NO_TIMES = ["", "now", "31.5.2024", "2024-02-30", "2023-02-29T00:00:00Z", "2024-05-31T25:00:00Z", "12", "infinity"]
_NO_TIMES += ["2024-05-31T12:00:00Z\0", "0000-01-01", "99999-01-01", "2024-05-31T12:00:60Z", "2024/05/31", "epoch"]
_QUERIES = [
    "red shoe",
    "Red  Shoe",
    "ＲＥＤ shoe",
    "東京",
    "a\u0301",
    "ß",
    "x" * 500,
    "'; DROP TABLE x --",
    "%s{found}",
    "a\u200bb",
]
_NO_QUERIES = ["\u200b", "\ufeff \u200e", "", " ", "\u3000\t", "\x1c", "a\0b", "\u2028"]
_IDS = ["d1", "d2", "d3", "D1", "d1 ", "é", "\t", "d\0", "'", '"', "{found}", "0", "x" * 300]
_NO_IDS = ["", " ", "   "]
_TEXTS = ["", "a title", "\0", "😀", "x" * 2000, "{}", "'\"\\"]
_NUMBERS = [0.0, 1.0, 2.5, -0.0, 1e-300, 1e308]
_NO_NUMBERS = [-1.0, -1e-300, math.nan, math.inf, -math.inf]


def _good(generator: Random, kind: str) -> Any:
    pools = {"id": _IDS, "query": _QUERIES, "time": _TIMES, "stage": _STAGES, "text": _TEXTS, "seconds": _NUMBERS}
    pools |= {
        "grade": _NUMBERS,
        "flag": [True, False],
        "position": [1, 2, 7, 2**31 - 1],
        "split": ["train", "dev", "test"],
    }
    return generator.choice(pools[kind])


def _bad(generator: Random, kind: str) -> Any:
    pools = {"id": _NO_IDS, "query": _NO_QUERIES, "time": _NO_TIMES, "stage": ["seen", "", "Shown"], "text": [None]}
    pools |= {"seconds": _NO_NUMBERS, "grade": _NO_NUMBERS, "flag": [None], "position": [0, -1, 2**31, 2**62]}
    pools |= {"split": ["", "Test", "validation"]}
    return generator.choice([*pools[kind], None])


def _row(generator: Random, table: str, badness: float) -> Row:
    row = {}
    for column in SCHEMAS[table].columns:
        if generator.random() < badness:
            row[column.name] = _bad(generator, column.kind)
        elif not column.required and generator.random() < 0.4:
            row[column.name] = None
        else:
            row[column.name] = _good(generator, column.kind)
    return row


def random_tables(generator: Random) -> Tables:
    """Small tables of which many rows break a rule, and some cases none."""
    badness = generator.choice([0.0, 0.02, 0.1, 0.3])
    names = generator.choice(
        [
            ["documents", "judgements"],
            ["documents", "searches", "candidates"],
            ["documents", "searches", "candidates", "feed_views"],
            ["documents", "judgements", "knowledge_documents"],
            ["documents", "judgements", "test_clicks"],
        ]
    )
    tables = {name: [_row(generator, name, badness) for _ in range(generator.randint(1, 9))] for name in names}
    if generator.random() < 0.8:
        _tidy(generator, tables, keep=badness / 2)
    return tables


def _tidy(generator: Random, tables: Tables, *, keep: float) -> None:
    """Makes ids known and keys distinct, and positions those of what was shown, so that not everything is refused."""
    for name, rows in tables.items():
        key = SCHEMAS[name].key
        for number, row in enumerate(rows):
            if generator.random() < keep:
                continue
            if name in ("documents", "searches", "knowledge_documents"):
                row[key[0]] = f"{name[0]}{number}"
            if name == "candidates":
                row["search_id"] = generator.choice(tables["searches"])["search_id"]
            if name in ("candidates", "feed_views"):
                row["doc_id"] = generator.choice(tables["documents"])["doc_id"]
            if name == "candidates" and row["stage"] != "shown":
                row["position"] = None


def expected(tables: Tables) -> dict[str, list[int]]:
    """By table the numbers of the rows that are kept when the others are set aside."""
    kept: dict[str, list[int]] = {}
    for name in (name for name in SCHEMAS if name in tables):
        rows, seen = [], set()
        for number, row in enumerate(tables[name]):
            if not _is_right(name, row) or not _is_known(name, row, tables, kept):
                continue
            key = tuple(_read(name, column, row[column]) for column in SCHEMAS[name].key)
            if key and key in seen:
                continue
            seen.add(key)
            rows.append(number)
        kept[name] = rows
    return kept


def _is_right(table: str, row: Row) -> bool:
    for column in SCHEMAS[table].columns:
        value = row[column.name]
        if value is None:
            if column.required:
                return False
            continue
        right: dict[str, Callable[[Any], bool]] = {
            "id": lambda value: value.strip(" ") != "",
            "query": lambda value: _visible(value).strip() != "" and "\0" not in value,
            "stage": lambda value: value in _STAGES,
            "split": lambda value: value in ("train", "dev", "test"),
            "time": lambda value: value in _TIMES,
            "position": lambda value: 1 <= value < 2**31,
            "seconds": lambda value: math.isfinite(value) and value >= 0,
            "grade": lambda value: math.isfinite(value) and value >= 0,
        }
        if column.kind in right and not right[column.kind](value):
            return False
    return table != "candidates" or row["position"] is None or row["stage"] == "shown"


def _visible(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def _is_known(table: str, row: Row, tables: Tables, kept: dict[str, list[int]]) -> bool:
    def ids(owner: str, column: str) -> set[str]:
        return {tables[owner][number][column] for number in kept[owner]}

    if table == "candidates":
        return row["search_id"] in ids("searches", "search_id") and row["doc_id"] in ids("documents", "doc_id")
    if table == "feed_views":
        return row["doc_id"] in ids("documents", "doc_id")
    return table != "knowledge_documents" or row["doc_id"] not in ids("documents", "doc_id")


def _read(table: str, column: str, value: Any) -> Any:
    """A value as readers get it."""
    if column == "query" and SCHEMAS[table].normalised_query:
        return " ".join(unicodedata.normalize("NFKC", _visible(value)).lower().split())
    if column in ("time", "published_at") and value is not None:
        moment = datetime.datetime.fromisoformat(value.strip())
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return value


_TYPES = {"position": pa.int64(), "flag": pa.bool_(), "seconds": pa.float64(), "grade": pa.float64()}


def _write(generator: Random, folder: Path, tables: Tables) -> dict[str, list[tuple[str, int]]]:
    """Writes tables in one of the forms that writers choose; returns of each row its file and number."""
    places = {}
    for name, rows in tables.items():
        columns = SCHEMAS[name].columns
        schema = pa.schema([pa.field(column.name, _TYPES.get(column.kind, pa.string())) for column in columns])
        table = pa.Table.from_pylist(rows, schema)
        empty = [c.name for c in columns if not c.required and table.column(c.name).null_count == len(rows)]
        table = table.drop_columns([column for column in empty if generator.random() < 0.5])
        cuts = sorted(generator.sample(range(1, len(rows)), min(len(rows) - 1, generator.randrange(3))))
        bounds = [0, *cuts, len(rows)]
        single = len(bounds) == 2 and generator.random() < 0.7
        places[name] = []
        for part, (first, last) in enumerate(itertools.pairwise(bounds)):
            file = folder / f"{name}.parquet" if single else folder / name / f"{part}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                table.slice(first, last - first),
                file,
                row_group_size=generator.choice([1, 3, 1000]),
                compression=generator.choice(["none", "snappy", "zstd", "gzip"]),
                use_dictionary=generator.choice([True, False]),
                write_statistics=generator.choice([True, False]),
                data_page_version=generator.choice(["1.0", "2.0"]),
            )
            places[name] += [(str(file), row) for row in range(last - first)]
    return places


def values_case(generator: Random, folder: Path) -> str:
    """Broken values: "fail" refuses where there is one; "quarantine" reads all other rows, and no other."""
    tables = random_tables(generator)
    places = _write(generator, folder / "logs", tables)
    kept = expected(tables)
    whole = {name: list(range(len(rows))) for name, rows in tables.items()}
    needed = ("documents", "searches", "candidates") if "candidates" in tables else ("documents", "judgements")
    strict = _opened(folder / "logs")
    assert isinstance(strict, InputError) == (kept != whole), strict
    if not isinstance(strict, InputError):
        _assert_read(strict, tables, whole)
    logs = _opened(folder / "logs", on_bad_rows="quarantine", quarantine=folder / "aside")
    assert isinstance(logs, InputError) != all(kept[name] for name in needed), logs
    if isinstance(logs, InputError):
        return REFUSED
    _assert_read(logs, tables, kept)
    for name, rows in tables.items():
        aside = folder / "aside" / f"{name}.parquet"
        found = pq.read_table(aside).to_pylist() if aside.exists() else []
        assert [(row["file"], row["row"]) for row in found] == sorted(
            place for number, place in enumerate(places[name]) if number not in set(kept[name])
        )
        assert sum(logs.quarantined.get(name, {}).values()) == len(found) == len(rows) - logs.num_rows(name)
        assert all(tuple(row) == COLUMNS and row["reason"] and row["column"] for row in found)
    return ACCEPTED


def _opened(folder: Path, **how: Any) -> LogTables | InputError:
    try:
        return open_logs(folder, **how)
    except InputError as error:
        return error


def _assert_read(logs, tables: Tables, kept: dict[str, list[int]]) -> None:
    connection = logs.connect()
    for name, numbers in kept.items():
        rows = [
            {column: _read(name, column, value) for column, value in tables[name][number].items()} for number in numbers
        ]
        assert logs.read(name).to_pylist() == rows
        assert connection.table(name).count().to_pyarrow().as_py() == len(rows) == logs.num_rows(name)


def bytes_case(generator: Random, folder: Path) -> str:
    """A table's file with other bytes, its columns in other types, or none of it: refused, or every row is read."""
    _write(generator, folder / "logs", _clean(generator))
    file = generator.choice(sorted((folder / "logs").rglob("*.parquet")))
    match generator.randrange(4):
        case 0:
            _restyle(generator, file)
        case 1:
            _cut_or_swap(generator, file, folder)
        case _:
            file.write_bytes(fuzzing.mutated_bytes(generator, file.read_bytes()))
    mode = generator.choice(["fail", "quarantine"])
    logs = open_logs(folder / "logs", on_bad_rows=mode, quarantine=folder / "aside")
    for name in logs.names:
        counted = sum(pq.ParquetFile(part).metadata.num_rows for part in logs.files(name))
        aside = sum(logs.quarantined.get(name, {}).values())
        assert logs.read(name).num_rows == logs.num_rows(name) == counted - aside
    return ACCEPTED


def _clean(generator: Random) -> Tables:
    while True:
        tables = random_tables(generator)
        if expected(tables) == {name: list(range(len(rows))) for name, rows in tables.items()}:
            return tables


def _restyle(generator: Random, file: Path) -> None:
    """Another type, name or number of a column."""
    table = pq.read_table(file)
    column = generator.choice(table.column_names)
    place = table.column_names.index(column)
    match generator.randrange(5):
        case 0:
            table = table.drop_columns(column)
        case 1:
            table = table.rename_columns({column: generator.choice([column.upper(), column + "_", "", "row"])})
        case 2:
            table = table.append_column(
                generator.choice([column.title(), "file", "row", "filename"]), table.column(column)
            )
        case 3:
            kind = generator.choice(
                [pa.int8(), pa.float16(), pa.list_(pa.string()), pa.binary(), pa.bool_(), pa.date32(), pa.null()]
            )
            table = table.set_column(place, column, pa.nulls(len(table), kind))
        case 4:
            values = table.column(column).combine_chunks()
            kind = generator.choice(
                [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.binary(), pa.string_view()]
            )
            if pa.types.is_string(values.type):
                table = table.set_column(place, column, values.cast(kind))
    pq.write_table(table, file)


def _cut_or_swap(generator: Random, file: Path, folder: Path) -> None:
    """A file that is cut off, empty, a folder, of another table, or no Parquet at all."""
    whole = file.read_bytes()
    match generator.randrange(4):
        case 0:
            file.write_bytes(whole[: generator.randrange(len(whole))])
        case 1:
            file.write_bytes(generator.choice([b"", b"PAR1", b"PAR1PAR1", b"doc_id,title\n1,2\n", bytes(1000)]))
        case 2:
            other = generator.choice(sorted((folder / "logs").rglob("*.parquet")))
            file.write_bytes(other.read_bytes())
        case 3:
            file.unlink()


@fuzzing.sizes(values_case)
def test_broken_values_are_refused_or_set_aside_and_nothing_else_is(number, tmp_path):
    fuzzing.run(values_case, number, tmp_path, accepted=1 / 3)


@fuzzing.sizes(bytes_case)
def test_damaged_files_are_refused_or_read_whole(number, tmp_path):
    fuzzing.run(bytes_case, number, tmp_path, refused=1 / 3)
