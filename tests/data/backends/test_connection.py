"""What is said when Spark cannot be had. None of these starts it."""

import socket
import sys

import pytest

from crops_jax.errors import InputError
from data.backends import spark_session
from data.backends.connection import connect
from data.tables import open_logs


@pytest.fixture
def logs(write_logs):
    return open_logs(write_logs(judgements=[{"query": "a", "doc_id": "d1", "grade": 1.0}]))


@pytest.fixture
def no_session(monkeypatch):
    """As if no test had started Spark in this process."""
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setattr(sql.SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setattr(spark_session, "_CONNECT_SECONDS", 5)


def test_duckdb_is_what_log_tables_connect_to(logs):
    connection = connect(logs)
    assert connection.name == "duckdb"
    assert connection.table("judgements").count().to_pyarrow().as_py() == 1


def test_without_pyspark(logs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(InputError, match="needs pyspark"):
        spark_session.open_session("local[1]")


def test_without_java(no_session, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(InputError, match="needs Java 17"):
        spark_session.open_session("local[1]")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"JAVA_HOME=.* has none"):
        spark_session.open_session("local[1]")


def test_a_master_that_does_not_answer_is_named_at_once(no_session, monkeypatch):
    monkeypatch.setattr(spark_session, "_check_java", lambda: None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(InputError, match=f"spark://{address} cannot be reached"):
            spark_session.open_session(f"spark://{address}")


@pytest.mark.parametrize("master", ["spark://somewhere", "spark://host:port", "spark://:7077"])
def test_a_master_without_an_address_is_refused(no_session, monkeypatch, master):
    monkeypatch.setattr(spark_session, "_check_java", lambda: None)
    with pytest.raises(InputError, match="is not HOST:PORT"):
        spark_session.open_session(master)


@pytest.mark.parametrize(
    ("limit", "heap"), [("4GB", "3814m"), ("1.5 GiB", "1536m"), ("800MB", "762m"), ("0.5TiB", "524288m")]
)
def test_memory_limits_are_a_heap(limit, heap):
    assert spark_session._java_size(limit) == heap


@pytest.mark.parametrize("limit", ["nonsense", "4", "GB", "-1GB", "100MB"])
def test_wrong_memory_limits_are_refused(limit):
    with pytest.raises(InputError, match="--memory-limit"):
        spark_session._java_size(limit)
