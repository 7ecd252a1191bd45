"""The Spark session of this process, with the settings that results depend on."""

import os
import re
import shutil
import socket
import sys
import tempfile
import warnings

from crops_jax.errors import InputError, one_line
from data.tables.duckdb_session import memory_bytes

_CONNECT_SECONDS = 10
_DRIVER_SHARE = 0.25
_MIN_HEAP_MEBIBYTES = 450

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # A value that cannot be cast raises an error and does not become null.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Times before 1900 are read unchanged, in the calendar of the file.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
_LAUNCH_SETTINGS = {
    "spark.app.name": "crops_jax",
    "spark.driver.maxResultSize": "0",
    # What ends the work comes as an exception, from which data.backends.spark_errors makes one message.
    "spark.log.level": "FATAL",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def open_session(master: str, *, memory_limit: str | None = None):
    """Returns a new SparkSession of this process's Spark, which is started if it does not run yet.

    If Spark already runs, its master and memory stay unchanged. Settings of spark-defaults.conf, such as those of
    executors and shuffles, apply. Spark writes its log to standard error.

    Args:
      master: the master in the form of spark-submit: local[N], spark://HOST:PORT, yarn, k8s://...
      memory_limit: the size of the driver's heap; by default a quarter of the machine's memory.

    Raises:
      InputError: pyspark or Java is missing, the memory limit is no size, or the master cannot be reached.
    """
    # No data passes through pandas, so Spark's warning about its newest versions does not apply.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise InputError(
            f"--backend pyspark needs pyspark ({error}); install pyspark>=4.1, or leave --backend out to run on DuckDB"
        ) from error
    session = SparkSession.getActiveSession()
    if session is None:
        session = _start(SparkSession.builder, master, memory_limit)
    # Each session has its own views and settings.
    session = session.newSession()
    for name, value in _SETTINGS.items():
        session.conf.set(name, value)
    return session


def _start(builder, master: str, memory_limit: str | None):
    _check_java()
    _check_reachable(master)
    local = re.fullmatch(r"local(\[.*\])?", master) is not None
    settings = _LAUNCH_SETTINGS | _SETTINGS | {"spark.driver.memory": _java_size(memory_limit)}
    temporary = tempfile.gettempdir()
    settings |= {"spark.local.dir": temporary, "spark.sql.warehouse.dir": f"{temporary}/crops_jax-spark-warehouse"}
    if local:
        # There are two tasks for each core; the default of 200 tasks is meant for a cluster.
        settings |= {
            "spark.sql.shuffle.partitions": str(max(2 * (os.cpu_count() or 1), 8)),
            "spark.driver.host": "localhost",
            "spark.driver.bindAddress": "127.0.0.1",
        }
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.master(master).getOrCreate()
    except Exception as error:
        raise InputError(
            f"--spark-master {master}: Spark does not start ({one_line(error, limit=300)}); check the master, its "
            "version (that of pyspark here) and that this machine can be reached from it"
        ) from error


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not shutil.which(f"{home}/bin/java" if home else "java"):
        problem = f"JAVA_HOME={home} has none" if home else "the PATH has no java and JAVA_HOME is not set"
        raise InputError(f"--backend pyspark needs Java 17 or later: {problem}; install a JRE, or run on DuckDB")


def _check_reachable(master: str) -> None:
    """Raises InputError if a standalone master cannot be reached. Spark itself would fail only after a minute."""
    if not (match := re.fullmatch(r"spark://(.+)", master)):
        return
    reasons = []
    for address in match[1].split(","):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"--spark-master {master}: {address!r} is not HOST:PORT; write spark://HOST:7077")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            reasons.append(f"{address}: {error}")
    raise InputError(
        f"--spark-master {master} cannot be reached ({'; '.join(reasons)}); start it, or check the address"
    )


def _java_size(memory_limit: str | None) -> str:
    if memory_limit is None:
        return f"{max(int(_DRIVER_SHARE * _machine_bytes()) >> 20, 1024)}m"
    mebibytes = memory_bytes(memory_limit) >> 20
    if mebibytes < _MIN_HEAP_MEBIBYTES:
        raise InputError(f"--memory-limit {memory_limit}: Spark needs at least {_MIN_HEAP_MEBIBYTES}MiB")
    return f"{mebibytes}m"


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
