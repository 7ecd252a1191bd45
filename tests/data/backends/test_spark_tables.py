"""Equal tables on DuckDB and on Spark: the views of odd files, and mining, evidence included.

Spark starts once for all of them.
"""

import datetime
import decimal
import json
import random
import subprocess
import sys
import types
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError, NamedFailure
from data.backends.connection import connect
from data.backends.spark_errors import named_spark_errors
from data.backends.spark_tables import SparkTables
from data.labels.table import open_labels
from data.mine import mine
from data.tables import open_logs
from tests.mining_arguments import mine_arguments
from tests.paths import ROOT

pytestmark = pytest.mark.slow
pytest.importorskip("pyspark")

MASTER = "local[2]"
TEXTS = [
    *(
        "Red  Lamp",
        "red lamp",
        "lamp  red",
        "ＲＥＤ lamp",
        "red lamps",
        "It's a red lamp",
        'say "red lamp"',
        "back\\slash lamp",
    ),
    *(
        "été 苹果",
        "été 苹果 😀",
        "\uffee lamp",
        "bell\x07 lamp",
        "\x01 lamp \x1b",
        "lamp $1 \\1 %s",
        "lamp -- /* ; ",
        "lamp\t\v\u3000red",
        "red\u200b lamp\ufeff",
        "\u202ered \u00adlamp\u200d",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _stopped_afterwards():
    yield
    from pyspark.sql import SparkSession

    if (session := SparkSession.getActiveSession()) is not None:
        session.stop()


def test_tables_that_outlive_spark_end_without_a_word(capfd):
    """After SIGTERM, the interpreter ends them when the session is gone already."""
    backend = SparkTables()
    backend._session = types.SimpleNamespace(catalog=None)
    entry = types.SimpleNamespace(orig_op="op", finalizer=types.SimpleNamespace(detach=lambda: None))
    backend._cache_name_to_entry["cached"], backend._cache_op_to_entry["op"] = entry, entry
    backend._finalize_cached_table("cached")
    finalizer = backend._make_memtable_finalizer("memory")
    assert finalizer is not None
    finalizer()
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not backend._cache_name_to_entry


def tables_of(logs):
    """Every table of log tables on both backends, rows sorted."""
    for name in sorted(logs.names):
        one, other = (
            connect(logs, backend=backend, spark_master=MASTER).table(name).to_pyarrow()
            for backend in ("duckdb", "pyspark")
        )
        by = [(column, "ascending") for column in one.column_names]
        yield name, one.sort_by(by), other.sort_by(by)


def mined_on_both(logs, tmp_path, **arguments):
    """The label table on each backend, in the order of its files, and the outcomes."""
    found = []
    for backend in ("duckdb", "pyspark"):
        output = tmp_path / backend
        outcome = mine(
            mine_arguments(logs=str(logs), output=str(output), backend=backend, spark_master=MASTER, **arguments)
        )
        with open_labels(output) as (connection, _):
            rows = connection.sql("SELECT * EXCLUDE (file, row) FROM labels ORDER BY file, row").to_arrow_table()
        found.append((rows.to_pylist(), {**outcome, "labels": None}, (output / "alpha_sweep.json").read_text()))
    return found


def test_views_of_odd_files_are_equal(tmp_path):
    folder = tmp_path / "lo gs [1] {a,b} %20"
    for part in ("documents", "searches/day=2024-05-31", "searches/day=2024-06-01"):
        (folder / part).mkdir(parents=True)
    pq.write_table(
        pa.table(
            {
                "doc_id": pa.array(["d1", "d2"]).dictionary_encode(),
                "title": pa.array(["a", "b"], pa.large_string()),
                "text": pa.nulls(2),
                "published_at": pa.array([499, -500], pa.timestamp("ns")),
                "another": [1, 2],
            }
        ),
        folder / "documents" / "part.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "doc_id": ["d3"],
                "title": ["c"],
                "text": pa.nulls(1),
                "published_at": pa.array([1999999999999999999], pa.timestamp("ns")),
            }
        ),
        folder / "documents" / "rest.parquet",
    )
    times = [
        *(
            "2024-05-31T23:59:59.999999Z",
            "2024-05-31 23:59",
            "2024-05-31T24:00:00Z",
            "2024-05-31T10:00+05:30",
            "2024-05-31",
            " 2024-05-31T10:00:00+05:30 ",
            "2024-05-31T10:00:00-0530",
        ),
        *(
            "2024-05-31T10:00:00+05",
            "2024-05-31T10:00:00.1234567Z",
            "0001-01-01T00:00:00Z",
            "1582-10-10",
            "9998-12-31T23:59:59.5",
        ),
    ]
    for day, chosen in (("2024-05-31", times[:6]), ("2024-06-01", times[6:])):
        ids = [f"{day} {i}" for i in range(len(chosen))]
        pq.write_table(
            pa.table({"search_id": ids, "user_id": ids, "query": TEXTS[: len(ids)], "time": chosen}),
            folder / "searches" / f"day={day}" / "part=1.parquet",
        )
    pq.write_table(
        pa.table(
            {
                "search_id": ["2024-05-31 0"] * 3,
                "doc_id": ["d1", "d2", "d3"],
                "stage": ["shown", "shown", "ranked_not_shown"],
                "position": [1.0, 2.0, None],
                "clicked": [True, None, None],
                "watch_seconds": [decimal.Decimal("1.25"), None, decimal.Decimal("0.10")],
            }
        ),
        folder / "candidates.parquet",
    )
    moments = pa.array([1, -86_400_000, 0], pa.timestamp("ms", tz="America/New_York"))
    pq.write_table(
        pa.table({"user_id": ["u"] * 3, "doc_id": ["d1", "d2", "d3"], "time": moments, "watch_seconds": [1, 2, None]}),
        folder / "feed_views.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "query": [*TEXTS[7:11], " Red LAMP "],
                "doc_id": ["d1"] * 5,
                "grade": pa.array([0, 1, 2, 3, 4], pa.float32()),
            }
        ),
        folder / "judgements.parquet",
    )
    logs = open_logs(folder)
    for name, one, other in tables_of(logs):
        assert other.schema == one.schema, name
        assert other.to_pylist() == one.to_pylist(), name
        assert one.num_rows == logs.num_rows(name)


def test_views_of_files_of_other_types_are_equal(tmp_path):
    """Runs of files with other types, other names and without a column; ids, flags, epochs and lists of other types."""
    moments = pa.array([1717156800, 1717156801], pa.int64())
    documents = [
        {"doc_id": pa.array([1, 2]), "title": ["a", "b"], "keywords": [["x", None, "y"], []], "published_at": moments},
        {"doc_id": ["3"], "title": ["c"], "keywords": ["k"], "published_at": [datetime.date(2024, 5, 31)]},
        {"doc_id": pa.array([2.0**53 - 1, 5.0]), "Title": ["d", "e"], "text": ["t", None]},
        {"doc_id": [decimal.Decimal(10**37)], "title": pa.array([7], pa.uint64()), "published_at": [1717156800000.0]},
        {"doc_id": pa.array([8, 9], pa.uint64()), "title": ["f", "g"], "published_at": pa.nulls(2)},
        {},
    ]
    candidates = [
        {"doc_id": pa.array([1, 2], pa.int32()), "position": [1.0, None], "clicked": pa.array([1, 0], pa.int8())},
        {"doc_id": pa.array([5], pa.int16()), "position": [decimal.Decimal(1)], "clicked": [1.0], "watch_seconds": [3]},
        {
            "doc_id": ["3", "8"],
            "position": pa.array([1, None], pa.int64()),
            "clicked": [2, 1],
            "watch_seconds": [1.5, 2],
        },
    ]
    times = [1717156800000000, 1717156800000000999]
    tables = {"documents": documents, "candidates": candidates}
    tables["searches"] = [
        {"search_id": ["1"], "user_id": [1], "query": ["red"], "time": [times[0]]},
        {"search_id": [2], "user_id": ["u"], "query": [22], "time": pa.array([times[1]], pa.uint64())},
    ]
    for name, files in tables.items():
        (tmp_path / name).mkdir()
        for number, columns in enumerate(files):
            if name == "candidates":
                rows = len(columns["doc_id"])
                columns |= {"search_id": ["1"] * rows, "stage": ["shown"] * rows}
            pq.write_table(pa.table(columns), tmp_path / name / f"{number}.parquet")
    logs = open_logs(tmp_path, on_bad_rows="quarantine")
    assert logs.quarantined == {"candidates": {"clicked: value is no flag": 1}}
    for name, one, other in tables_of(logs):
        assert other.schema == one.schema, name
        assert other.to_pylist() == one.to_pylist(), name
        assert one.num_rows == logs.num_rows(name)


@pytest.mark.parametrize("mixed", [False, True])
def test_timestamps_as_spark_writes_them_are_equal(tmp_path, write_logs, at, mixed):
    """INT96, also beside files whose nanoseconds are INT64, which Arrow calls by the same name."""
    logs = write_logs(**random_log(6, at))
    for name in ("searches", "feed_views"):
        table = pq.read_table(logs / f"{name}.parquet")
        times = pa.array([time.value + 1001 if time else None for time in table["time"].to_pandas()], pa.int64())
        table = table.set_column(table.schema.get_field_index("time"), "time", times.cast(pa.timestamp("ns", "UTC")))
        (logs / f"{name}.parquet").unlink()
        (logs / name).mkdir()
        pq.write_table(table[:50], logs / name / "a.parquet", use_deprecated_int96_timestamps=True)
        pq.write_table(table[50:], logs / name / "b.parquet", use_deprecated_int96_timestamps=not mixed)
    opened = open_logs(logs)
    for name, one, other in tables_of(opened):
        assert other.schema == one.schema, name
        assert other.to_pylist() == one.to_pylist(), name
        assert one.num_rows == opened.num_rows(name)
    one, other = mined_on_both(logs, tmp_path, alpha=0.1)
    assert other == one
    assert len(one[0]) > 50


def test_a_codec_that_spark_has_not_is_named(tmp_path, write_logs, at):
    logs = write_logs(**random_log(6, at))
    file = logs / "searches.parquet"
    pq.write_table(pq.read_table(file), file, compression="brotli")
    message = rf"table searches: Spark cannot read {file} \(.*BrotliCodec\); write the file with"
    arguments = mine_arguments(
        logs=str(logs), output=str(tmp_path / "labels"), backend="pyspark", spark_master=MASTER, alpha=0.1
    )
    with pytest.raises(InputError, match=message):
        mine(arguments)
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("kind", [pa.float16(), pa.decimal256(50, 2)])
def test_types_that_spark_has_not_are_named(write_logs, at, kind):
    logs = write_logs(**random_log(6, at))
    file = logs / "candidates.parquet"
    table = pq.read_table(file)
    values = pa.array([1.0] * len(table)).cast(kind)
    pq.write_table(table.set_column(table.schema.get_field_index("watch_seconds"), "watch_seconds", values), file)
    with pytest.raises(InputError, match=rf"table candidates: Spark cannot read {file} \(\["):
        connect(open_logs(logs), backend="pyspark", spark_master=MASTER)


def test_other_errors_of_spark_are_named_failures(write_logs, at):
    logs = open_logs(write_logs(**random_log(6, at)))
    connection = connect(logs, backend="pyspark", spark_master=MASTER)

    def failing(batches):
        raise ValueError("no such thing")
        yield from batches

    with pytest.raises(NamedFailure, match=r"^Spark failed \(ValueError: no such thing\); check"):
        with named_spark_errors(logs.tables.values()):
            connection.raw_sql("SELECT 1 AS a").mapInArrow(failing, "a int").collect()
    with pytest.raises(NamedFailure, match=r"^Spark failed \(\[DIVIDE_BY_ZERO\]"):
        with named_spark_errors(logs.tables.values()):
            connection.raw_sql("SELECT 1 / 0 FROM searches").collect()
    with pytest.raises(KeyError):
        with named_spark_errors(logs.tables.values()):
            raise KeyError("not Spark's")


def test_uuids_that_spark_has_not_are_named(tmp_path):
    ids = pa.array([uuid.UUID(int=i).bytes for i in (1, 2)], pa.uuid())
    pq.write_table(pa.table({"doc_id": ids, "title": ["a", "b"]}), tmp_path / "documents.parquet")
    judged = {"query": ["a"], "doc_id": [str(uuid.UUID(int=1))], "grade": [1]}
    pq.write_table(pa.table(judged), tmp_path / "judgements.parquet")
    logs = open_logs(tmp_path)
    assert logs.read("documents")["doc_id"].to_pylist()[0] == str(uuid.UUID(int=1))
    with pytest.raises(InputError, match=r"table documents: Spark cannot read .*documents\.parquet .*UUID"):
        connect(logs, backend="pyspark", spark_master=MASTER)


def test_rows_that_are_set_aside_are_read_by_neither(tmp_path, write_logs, at):
    searches = [{"search_id": f"s{i}", "user_id": "u", "query": "a" if i % 3 else " ", "time": at(i)} for i in range(9)]
    folder = write_logs(
        searches=searches,
        candidates=[{"search_id": f"s{i}", "doc_id": "d1", "stage": "shown", "clicked": True} for i in range(9)],
    )
    file = folder / "searches.parquet"
    table = pq.read_table(file)
    times = ["no time" if i == 4 else row.isoformat() for i, row in enumerate(table["time"].to_pylist())]
    pq.write_table(table.set_column(3, "time", pa.array(times)), file)
    logs = open_logs(folder, on_bad_rows="quarantine")
    read = {name: other.to_pylist() for name, one, other in tables_of(logs) if other.to_pylist() == one.to_pylist()}
    assert [row["search_id"] for row in read["searches"]] == ["s1", "s2", "s5", "s7", "s8"]
    assert set(read) == set(logs.names)


def search(search_id, user_id, query, time):
    return {"search_id": search_id, "user_id": user_id, "query": query, "time": time}


def consumed(search_id, doc_id, **more):
    return {"search_id": search_id, "doc_id": doc_id, "stage": "shown", "clicked": True, **more}


def test_borders_of_every_perspective(write_logs, at, tmp_path):
    """Exactly 90 s, one microsecond more, a month's end, a clock that runs backwards, two users in one second, other
    case and spacing; the feed's window on both sides and its cap; half milliseconds; scores from 0 to 1."""
    logs = write_logs(
        documents=[
            {"doc_id": f"d{i}", "title": title, "text": None}
            for i, title in enumerate(("red lamp", "lamp", "red", "été 苹果", "blue chair", "a b c d e f g h lamp"))
        ],
        searches=[
            search("s1", "u1", "red lamp", at("2024-05-31T23:59:00")),
            search("s2", "u1", "red lamps", at("2024-06-01T00:00:30")),
            search("s3", "u1", "red lamps!", at("2024-06-01T00:00:30.000001")),
            search("s4", "u1", "RED  Lamp", at("2024-06-01T00:00:30.000500")),
            search("s5", "u2", "red lamps", at("2024-05-31T23:59:00")),
            search("s6", "u2", "a red lamp", at("2024-05-31T23:58:59.999500")),
            search("s7", "u3", "red lamp", at("2024-05-31T23:59:00")),
            search("s8", "u3", "red lamp 苹果", at("2024-05-31T23:58:00")),
            search("s9", "u4", "red lamp", at("2024-05-31T23:59:00")),
            search("s10", "u5", "red lamps", at("2024-05-31T23:59:00")),
        ],
        candidates=[
            *(consumed(f"s{i}", "d0") for i in (1, 2, 3, 4, 5, 6, 7, 8)),
            *(consumed(f"s{i}", "d1") for i in (2, 3)),
            {"search_id": "s9", "doc_id": "d2", "stage": "shown", "clicked": None, "watch_seconds": 30.0},
            {"search_id": "s9", "doc_id": "d3", "stage": "shown", "clicked": None, "watch_seconds": 29.999},
            {"search_id": "s9", "doc_id": "d4", "stage": "ranked_not_shown", "clicked": True},
            {"search_id": "s9", "doc_id": "d5", "stage": "filtered_before_ranking"},
            {"search_id": "s10", "doc_id": "d4", "stage": "shown", "clicked": False, "liked": True},
            {"search_id": "s10", "doc_id": "d5", "stage": "shown", "clicked": False},
        ],
        feed_views=[
            {"user_id": user, "doc_id": f"d{i}", "time": at("2024-05-31T23:59:00") + datetime.timedelta(seconds=gap)}
            for user, gaps in {
                "u1": (-1800, -1800.000001, 1800, 1800.000001, 0.0005, 0.001499),
                "u2": (3, 3, 3, -3, 2.9995, 1),
                "u9": (0, 0, 0, 0, 0, 0),
            }.items()
            for i, gap in enumerate(gaps)
        ],
        knowledge_documents=[
            {"query": "Red  LAMP", "doc_id": "k1", "title": "t", "text": "x", "model": "m", "prompt_sha256": "0"}
        ],
    )
    one, other = mined_on_both(logs, tmp_path, alpha=0.0, max_feed_documents=3)
    assert other == one
    labels = {(row["query"], row["doc_id"]): row for row in one[0]}
    assert [(row["query"], row["doc_id"]) for row in one[0]] == sorted(labels)
    evidence = json.loads(labels["red lamp", "d1"]["evidence"])
    # 90 s and a microsecond is too late for s3.
    assert [entry["via_query"] for entry in evidence if entry["source"] == "query_level"] == ["red lamps"]
    assert {row["source"] for row in one[0]} >= {"query_level", "system_level", "search_log", "knowledge_level"}


def random_log(seed, at):
    chance = random.Random(seed)
    documents = [f"d{i}" for i in range(15)]
    searches = [
        search(
            f"s{i}",
            f"u{chance.randrange(6)}",
            chance.choice(TEXTS),
            at(chance.randrange(-900, 900) + chance.choice([0, 1e-6, 0.0005, 0.9999995])),
        )
        for i in range(250)
    ]
    candidates = [
        {
            "search_id": row["search_id"],
            "doc_id": doc_id,
            "stage": chance.choice(["shown", "shown", "ranked_not_shown", "filtered_before_ranking"]),
            "clicked": chance.choice([None, False, True]),
            "liked": chance.choice([None, False, True]),
            "watch_seconds": chance.choice([None, 0.0, 29.999, 30.0, 1e9]),
        }
        for row in searches
        for doc_id in chance.sample(documents, 4)
    ]
    return {
        "documents": [
            {"doc_id": doc_id, "title": chance.choice(TEXTS), "text": chance.choice([None, *TEXTS])}
            for doc_id in documents
        ],
        "searches": searches,
        "candidates": candidates,
        "feed_views": [
            {
                "user_id": f"u{chance.randrange(8)}",
                "doc_id": chance.choice(documents),
                "time": at(chance.randrange(-5000, 5000)),
            }
            for _ in range(150)
        ],
    }


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {"alpha": 0.3}),
        (
            1,
            {
                "alpha": 0.0,
                "beta": 0.1,
                "window_seconds": 120,
                "max_later_searches": 2,
                "max_searches_per_hour": 75,
                "only_unsatisfied": True,
                "max_feed_documents": 4,
                "feed_long_watch_only": False,
            },
        ),
        (
            2,
            {
                "min_supporters": 2,
                "alpha": 0.2,
                "levels": "query_level_at_4",
                "until": "2024-05-31T00:05:00",
                "partitions": 3,
            },
        ),
    ],
)
def test_random_logs(write_logs, at, tmp_path, seed, options):
    one, other = mined_on_both(write_logs(**random_log(seed, at)), tmp_path, **options)
    assert other == one
    assert len(one[0]) > 50
    files = sorted(str(file.relative_to(tmp_path / "pyspark")) for file in (tmp_path / "pyspark").rglob("*"))
    parts = options.get("partitions", 1)
    assert files == [
        "alpha_sweep.json",
        "labels",
        *(f"labels/part-{i:05d}.parquet" for i in range(parts)),
        "manifest.json",
    ]


def test_clicks_only_logs_and_judgements(write_logs, at, tmp_path):
    tables = random_log(3, at)
    tables["candidates"] = [{**row, "stage": "shown"} for row in tables["candidates"] if row["clicked"]]
    tables["judgements"] = [
        {"query": text, "doc_id": "d1", "grade": 3.0, "split": "train"} for text in ("Lamp", "café")
    ]
    logs = write_logs(**tables)
    one, other = mined_on_both(logs, tmp_path, judgements_as_labels=True, grade_levels="1=3,2=4", alpha=0.1)
    assert other == one
    assert "clicks only" in one[1]["discriminator"]["source"]


def test_a_day_on_spark_adds_the_same_to_a_state(write_logs, at, tmp_path):
    logs = write_logs(**random_log(4, at))
    found = []
    for backend in ("duckdb", "pyspark"):
        for day in ("2024-05-30", "2024-05-31"):
            mine(
                mine_arguments(
                    logs=str(logs),
                    output=str(tmp_path / backend),
                    state=str(tmp_path / f"state-{backend}"),
                    day=day,
                    backend=backend,
                    spark_master=MASTER,
                    alpha=0.2,
                )
            )
        found.append((tmp_path / backend / "labels.parquet").read_bytes())
    assert found[0] == found[1]


def test_the_command_line_prints_one_line(write_logs, at, tmp_path):
    command = [sys.executable, "-m", "data.mine", "--logs", str(write_logs(**random_log(5, at)))]
    command += ["--output", str(tmp_path / "labels"), "--backend", "pyspark", "--spark-master", "local[1]"]
    root = ROOT
    done = subprocess.run([*command, "--memory-limit", "1GB"], cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["rows"] > 50
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "labels"}
