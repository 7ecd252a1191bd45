"""Values of log tables from text, against values that were worked out by hand."""

import datetime

import pytest

from data.conversion import values
from data.tables import connect_duckdb

NOON = datetime.datetime(2024, 5, 31, 12, tzinfo=datetime.UTC)
SECONDS = int(NOON.timestamp())


def read(expression, text):
    """The value of an expression of the column v, and the text that it could not read."""
    with connect_duckdb() as connection:
        connection.execute("CREATE TABLE t (v VARCHAR)")
        connection.execute("INSERT INTO t VALUES (?)", [text])
        found = connection.sql(f"SELECT {expression} AS value, {values.unread('v', expression)} AS unread FROM t")
        (row,) = found.to_arrow_table().to_pylist()
    return row["value"], row["unread"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("1.0", True), ("0.0", False), ("0", False), ("true", True), (" False ", False), ("T", True)],
)
def test_flags(text, value):
    assert read(values.flag("v"), text) == (value, None)


@pytest.mark.parametrize("text", ["2", "-1", "0.5", "maybe", "nan", "1,0"])
def test_what_is_no_flag_is_named(text):
    assert read(values.flag("v"), text) == (None, text)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_what_is_not_there_is_null_and_is_not_named(text):
    for expression in (values.flag("v"), values.whole("v"), values.time("v"), "TRY_CAST(v AS DOUBLE)"):
        assert read(expression, text) == (None, None)


def test_ids_whose_digits_are_lost_are_named():
    for text in ("1.15292E+18", "1.152921504606847e+18", "1e+11"):
        assert read(values.identifier("v"), text) == (None, text)
    for text in ("1152921504606846976", "7", "2.5", "12e+18", "1e5", "e+18", "B1.5e+18"):
        assert read(values.identifier("v"), text) == (text, None)


def test_whole_numbers():
    assert read(values.whole("v"), "3") == (3, None)
    assert read(values.whole("v"), "3.0") == (3, None)
    for text in ("3.5", "third", "99999999999", "inf"):
        assert read(values.whole("v"), text) == (None, text)


@pytest.mark.parametrize(
    "text",
    [
        str(SECONDS),
        f"{SECONDS}.0",
        f"{SECONDS}000",
        f"{SECONDS}000000",
        f"{SECONDS}000000000",
        "2024-05-31T12:00:00Z",
        "2024-05-31T12:00:00.000Z",
        "2024-05-31T12:00:00,000Z",
        "2024-05-31T12:00:00.000000000Z",
        "2024-05-31T17:30:00+05:30",
        "2024-05-31T17:30:00+0530",
        "2024-05-31 12:00",
        "2024/5/31 12:00",
        "2024-05-31 12:00:00 UTC",
        "2024-05-31T12:00:00 GMT",
        "2024-05-31 17:30:00 +0530",
    ],
)
def test_units_of_times_are_told_by_size(text):
    assert read(values.time("v"), text) == (NOON, None)


def test_fractions_of_seconds():
    for text in ("2024-05-31T12:00:00.123456Z", "2024-05-31T12:00:00,123456Z", f"{SECONDS}.123456", f"{SECONDS}123456"):
        assert read(values.time("v"), text) == (NOON.replace(microsecond=123456), None)
    assert read(values.time("v"), "2024-05-31T12:00:00.5Z") == (NOON.replace(microsecond=500000), None)


@pytest.mark.parametrize("text", ["0", "946684799", "946684799999", "20240531", "2024", "soon", "31.5.2024"])
def test_numbers_before_2000_and_other_texts_are_no_times(text):
    assert read(values.time("v"), text) == (None, text)
    assert read(values.time("v"), "946684800")[0] == datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "text", ["4102444800", "20240531120000", "20240531120000123", "9999999999999", "999999999999999999999"]
)
def test_numbers_from_2100_on_are_the_digits_of_dates_and_no_times(text):
    assert read(values.time("v"), text) == (None, text)
    assert read(values.time("v"), "4102444799")[0] == datetime.datetime(2099, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "text", ["2024-05-31 12:00:00 Asia/Shanghai", "2024-05-31 01:00:00 PM", "epoch", "infinity", "2024-05-31 12:00 EST"]
)
def test_a_time_is_read_whole_or_not_at_all(text):
    assert read(values.time("v"), text) == (None, text)


def test_zones_and_the_earliest_time_of_a_source():
    assert read(values.time("v", "'Asia/Shanghai'"), "2024-05-31 20:00:00") == (NOON, None)
    assert read(values.time("v", "'Asia/Shanghai'"), "2024-05-31 12:00:00 UTC") == (NOON, None)
    assert read(values.since_2000(values.time("v")), "1970-01-01T00:00:00Z") == (None, "1970-01-01T00:00:00Z")
    assert read(values.time("v"), "1998-01-01")[0] == datetime.datetime(1998, 1, 1, tzinfo=datetime.UTC)
