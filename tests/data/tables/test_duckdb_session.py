"""Sizes as DuckDB and Spark are told them."""

import pytest

from crops_jax.errors import InputError
from data.tables import connect_duckdb
from data.tables.duckdb_session import duckdb_size, memory_bytes


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("4GB", 4 * 10**9),
        ("1.5 gib", 3 << 29),
        ("500mb", 5 * 10**8),
        (" 64KiB ", 65536),
        ("7B", 7),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes(written, size):
    assert memory_bytes(written) == size


@pytest.mark.parametrize(
    "written", ["", "4", "GB", "-1GB", "1e3MB", "0GB", "0.1B", "four GB", "4GBB", "9" * 15 + "TB", "ib"]
)
def test_what_is_no_size_is_refused(written):
    with pytest.raises(InputError, match=r"--memory-limit .* is no size; write 4GB or 500MB"):
        memory_bytes(written)


def test_duckdb_takes_it_to_the_byte():
    with connect_duckdb() as connection:
        connection.execute("SET memory_limit = $1", [duckdb_size("512MiB")])
        assert connection.sql("SELECT current_setting('memory_limit')").fetchall() == [("512.0 MiB",)]
