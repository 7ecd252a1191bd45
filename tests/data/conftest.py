"""Hand-made log tables."""

import datetime

import pyarrow as pa
import pytest

from data.tables import SCHEMAS, open_logs, write_table

DAY = datetime.datetime(2024, 5, 31, tzinfo=datetime.UTC)


@pytest.fixture
def at():
    """A moment on the day of the hand-made logs: seconds after midnight, or any ISO 8601 text."""

    def moment(when):
        if isinstance(when, str):
            return datetime.datetime.fromisoformat(when).replace(tzinfo=datetime.UTC)
        return DAY + datetime.timedelta(seconds=when)

    return moment


@pytest.fixture
def write_logs(tmp_path):
    """Writes log tables given as lists of rows into tmp_path/NAME; documents d0..d9 unless they are given."""

    def write(name="logs", **tables):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        titles = {"documents": [{"doc_id": f"d{i}", "title": f"title {i}"} for i in range(10)]}
        for table, rows in (titles | tables).items():
            schema = pa.schema([(column.name, column.arrow_type) for column in SCHEMAS[table].columns])
            write_table(directory, table, pa.Table.from_pylist(rows, schema))
        return directory

    return write


@pytest.fixture
def events_of(write_logs):
    """Events of hand-made tables; the connection stays open as long as they are used."""
    from data.perspectives.log_events import read_events

    def read(long_watch_seconds=30.0, **tables):
        logs = open_logs(write_logs(**tables))
        return read_events(logs.connect(), logs.names, long_watch_seconds=long_watch_seconds)

    return read
