"""Log tables: what is refused on entry and how the refusal reads; what readers get."""

import datetime
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.tables import SCHEMAS, open_logs, write_table

NOON = datetime.datetime(2024, 5, 31, 12, tzinfo=datetime.UTC)


def tables() -> dict[str, dict[str, list]]:
    """A small log that is right, as columns of plain values."""
    return {
        "documents": {"doc_id": ["d1", "d2", "d3"], "title": ["Red shoe", "", "Tie"], "keywords": ["x", None, "y"]},
        "searches": {
            "search_id": ["s1", "s2"],
            "user_id": ["u1", "u1"],
            "query": [" Red  Shoe", "tie"],
            "time": [NOON, NOON + datetime.timedelta(seconds=40)],
        },
        "candidates": {
            "search_id": ["s1", "s1", "s2"],
            "doc_id": ["d1", "d2", "d3"],
            "stage": ["shown", "ranked_not_shown", "filtered_before_ranking"],
            "position": [1, None, None],
            "clicked": [True, None, None],
            "watch_seconds": [3.5, None, None],
        },
        "feed_views": {"user_id": ["u9", "u9"], "doc_id": ["d1", "d1"], "time": [NOON, NOON]},
        "judgements": {"query": ["red shoe", "Ｒｅｄ shoe"], "doc_id": ["d1", "gone"], "grade": [2, 0.5]},
        "test_clicks": {"query": ["tie"], "doc_id": ["elsewhere"]},
        "knowledge_documents": {
            "query": ["tie"],
            "doc_id": ["k1"],
            "title": ["Silk tie"],
            "text": ["A tie of silk"],
            "model": ["m"],
            "prompt_sha256": ["0" * 64],
        },
    }


def write(directory, content):
    directory.mkdir(parents=True, exist_ok=True)
    for name, columns in content.items():
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, directory / f"{name}.parquet")
    return directory


def changed(name, **columns):
    content = tables()
    content[name].update(columns)
    return content


def without(*names, columns=()):
    content = {name: value for name, value in tables().items() if name not in names}
    for table, column in columns:
        del content[table][column]
    return content


def test_right_tables_are_read_in_the_types_of_the_schema(tmp_path):
    logs = open_logs(write(tmp_path, tables()))
    assert logs.names == frozenset(tables())
    assert logs.files("documents") == [tmp_path / "documents.parquet"]
    assert logs.num_rows("candidates") == 3
    for name in logs.names:
        assert logs.read(name).schema == SCHEMAS[name].arrow
    assert logs.read("documents").column("published_at").null_count == 3
    assert logs.read("searches", ["query"]).to_pydict() == {"query": [" Red  Shoe", "tie"]}
    assert logs.read("judgements").column("query").to_pylist() == ["red shoe", "red shoe"]
    assert logs.read("searches").column("time").to_pylist()[0] == NOON


def test_connection_has_a_view_a_table_with_every_column(tmp_path):
    logs = open_logs(write(tmp_path, tables()))
    connection = logs.connect(memory_limit="500MB")
    for name in logs.names:
        assert connection.table(name).to_pyarrow().schema == SCHEMAS[name].arrow
    assert set(connection.table("judgements").query.to_pyarrow().to_pylist()) == {"red shoe"}
    assert connection.raw_sql("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


@pytest.mark.parametrize(
    "times",
    [
        ["2024-05-31T12:00:00Z", "2024-05-31 14:00:40.5+02:00"],
        ["2024-05-31T12:00", "2024-05-31T07:00:40.500-0500"],
        pa.array([NOON.replace(tzinfo=None), NOON.replace(tzinfo=None)], pa.timestamp("ms")),
        pa.array([NOON, NOON], pa.timestamp("ns", tz="America/New_York")),
    ],
)
def test_times_are_timestamps_or_iso_text_in_utc(tmp_path, times):
    logs = open_logs(write(tmp_path, changed("searches", time=times)))
    first, second = logs.read("searches").column("time").to_pylist()
    assert first == NOON
    assert second in (NOON, NOON + datetime.timedelta(seconds=40.5))


def test_encodings_that_other_writers_use_are_taken(tmp_path):
    content = tables()
    content["documents"] = pa.table(content["documents"]).cast(
        pa.schema(
            {"doc_id": pa.large_string(), "title": pa.dictionary(pa.int32(), pa.string()), "keywords": pa.string()}
        )
    )
    content["candidates"]["position"] = pa.array([1.0, None, None])  # as pandas writes whole numbers with gaps
    content["candidates"]["watch_seconds"] = pa.nulls(3)
    content["candidates"]["further"] = [1, 2, 3]
    logs = open_logs(write(tmp_path, content))
    assert logs.read("candidates").column("position").to_pylist() == [1, None, None]
    assert logs.read("documents").column("title").to_pylist() == ["Red shoe", "", "Tie"]


def test_a_table_may_be_a_folder_of_files(tmp_path):
    content = tables()
    documents = pa.table(content.pop("documents"))
    write(tmp_path, content)
    for day, rows in (("day=2", documents[:1]), ("day=10", documents[1:])):
        (tmp_path / "documents" / day).mkdir(parents=True)
        pq.write_table(
            rows.append_column("day", pa.array([day] * len(rows))), tmp_path / f"documents/{day}/part.parquet"
        )
    (tmp_path / "documents" / "_SUCCESS").write_text("")
    logs = open_logs(tmp_path)
    assert [file.parent.name for file in logs.files("documents")] == ["day=10", "day=2"]
    assert logs.read("documents").column("doc_id").to_pylist() == ["d2", "d3", "d1"]


def test_paths_with_quotes_and_pattern_characters(tmp_path):
    logs = open_logs(write(tmp_path / "it's [1] * ?", tables()))
    assert logs.read("documents").num_rows == 3
    assert logs.connect().table("documents").count().to_pyarrow().as_py() == 3


def test_judgements_alone_are_enough(tmp_path):
    logs = open_logs(write(tmp_path, without("searches", "candidates", "feed_views", "test_clicks")))
    assert logs.names == {"documents", "judgements", "knowledge_documents"}


REFUSED = {
    "no documents": (without("documents"), ["documents", "missing", "doc_id, title"]),
    "no judgements and no searches": (without("judgements", "searches", "candidates"), ["searches", "missing"]),
    "no judgements and no candidates": (without("judgements", "candidates"), ["candidates", "missing"]),
    "candidates without searches": (without("searches"), ["searches", "missing"]),
    "missing column": (without(columns=[("searches", "user_id")]), ["searches", "user_id", "missing", "add it"]),
    "misspelt column": (
        {**without(columns=[("documents", "title")]), "documents": {"doc_id": ["d1"], "titel": ["a"]}},
        ["documents", "title", "rename titel"],
    ),
    "wrong type": (
        changed("documents", doc_id=[[1], [2], [3]]),
        ["documents", "doc_id", "list<element: int64>", "text"],
    ),
    "bytes as text": (changed("documents", title=[b"a", b"b", b"c"]), ["documents", "title", "binary", "text"]),
    "ids with a fraction": (
        changed("documents", doc_id=[1.0, 2.0, 3.5]),
        ["documents", "doc_id", "row 2", "3.5", "text"],
    ),
    "ids beyond the whole doubles": (
        changed("documents", doc_id=[1.0, 2.0, 2.0**53]),
        ["documents", "doc_id", "row 2", "whole number", "text"],
    ),
    "wrong type of an optional column": (
        changed("candidates", clicked=["yes", "no", "no"]),
        ["candidates", "clicked", "string", "boolean"],
    ),
    "flag 2": (
        changed("candidates", clicked=[1, 0, 2]),
        ["candidates", "clicked", "row 2", '"2" is no flag', "0 and 1"],
    ),
    "time as number": (
        changed("searches", time=[1.0, 2.0]),
        ["searches", "time", "row 0", '"1.0" is no time', "ISO 8601"],
    ),
    "time as whole numbers before 2000": (
        changed("searches", time=[946684800, 946684799]),
        ["searches", "time", "row 1", "946684799", "2000"],
    ),
    "time as a number with a fraction": (changed("searches", time=[1.7e9, 1.7e9 + 0.5]), ["searches", "time", "row 1"]),
    "time of day": (changed("searches", time=[NOON.time(), NOON.time()]), ["searches", "time", "time64", "timestamp"]),
    "column twice": (changed("documents", TITLE=["a", "b", "c"]), ["documents", "title", "more than once"]),
    "null id": (changed("candidates", doc_id=["d1", None, "d3"]), ["candidates", "doc_id", "row 1", "null"]),
    "null in a required column": (
        changed("documents", title=["a", "b", None]),
        ["documents", "title", "row 2", "null"],
    ),
    "empty id": (changed("searches", user_id=["u1", " "]), ["searches", "user_id", "row 1", "empty"]),
    "empty query": (changed("searches", query=["a", "\u3000 \t"]), ["searches", "query", "row 1", "empty"]),
    "query of invisible characters": (
        changed("searches", query=["a", " \ufeff\u200b\u200e "]),
        ["searches", "query", "row 1", "empty"],
    ),
    "judgements equal but for what is invisible": (
        changed("judgements", query=["red shoe", "red\u200b shoe"], doc_id=["d1", "d1"]),
        ["judgements", "query and doc_id", "row 1", "normalised"],
    ),
    "NUL in a query": (changed("searches", query=["a", "b\0c"]), ["searches", "query", "row 1", "NUL"]),
    "written document with a document's id": (
        changed("knowledge_documents", doc_id=["d1"]),
        ["knowledge_documents", "doc_id", "row 0", "d1", "another id"],
    ),
    "repeated document": (changed("documents", doc_id=["d1", "d2", "d1"]), ["documents", "doc_id", "row 2", "d1"]),
    "repeated search": (changed("searches", search_id=["s1", "s1"]), ["searches", "search_id", "row 1", "s1"]),
    "repeated candidate": (changed("candidates", search_id=["s1"] * 3, doc_id=["d1"] * 3), ["row 1", "2 rows repeat"]),
    "judgements equal once normalised": (
        changed("judgements", doc_id=["d1", "d1"]),
        ["judgements", "query and doc_id", "row 1", "normalised"],
    ),
    "unknown stage": (
        changed("candidates", stage=["shown", "seen", "shown"]),
        ["stage", "row 1", '"seen"', "ranked_not"],
    ),
    "unparsable time": (changed("searches", time=["2024-05-31", "31.5.2024"]), ["time", "row 1", '"31.5.2024"', "ISO"]),
    "impossible day": (changed("searches", time=["2024-05-31", "2024-02-30"]), ["time", "row 1", "2024-02-30"]),
    "time out of bounds": (
        changed("searches", time=pa.array([0, 2**62], pa.timestamp("us"))),
        ["searches", "time", "row 1", "years"],
    ),
    "position 0": (changed("candidates", position=[0, None, None]), ["position", "row 0", "below 1"]),
    "position one and a half": (changed("candidates", position=[1.5, None, None]), ["position", "row 0", "1.5"]),
    "position of what was not shown": (
        changed("candidates", position=[1, 2, None]),
        ["position", "row 1", "ranked_not"],
    ),
    "negative grade": (changed("judgements", grade=[1, -2]), ["judgements", "grade", "row 1", "-2"]),
    "grade not a number": (changed("judgements", grade=[1, float("nan")]), ["judgements", "grade", "row 1", "nan"]),
    "infinite watch": (changed("candidates", watch_seconds=[float("inf"), 1, 1]), ["watch_seconds", "row 0", "inf"]),
    "negative watch": (changed("feed_views", watch_seconds=[1.0, -1.0]), ["feed_views", "watch_seconds", "row 1"]),
    "unknown split": (changed("judgements", split=["train", "Test"]), ["judgements", "split", "row 1", '"Test"']),
    "candidate of an unknown search": (
        changed("candidates", search_id=["s1", "s1", "s7"]),
        ["candidates", "search_id", "row 2", '"s7"', "searches"],
    ),
    "candidate of an unknown document": (
        changed("candidates", doc_id=["d1", "d9", "d8"]),
        ["candidates", "doc_id", "row 1", '"d9"', "documents", "2 such rows"],
    ),
    "feed view of an unknown document": (changed("feed_views", doc_id=["d1", "d7"]), ["feed_views", "doc_id", '"d7"']),
    "empty documents": (
        {**tables(), "documents": pa.table(tables()["documents"])[:0]},
        ["documents", "no rows", "fill it"],
    ),
    "empty candidates": ({**tables(), "candidates": pa.table(tables()["candidates"])[:0]}, ["candidates", "no rows"]),
    "empty judgements alone": (
        {**without("searches", "candidates"), "judgements": pa.table(tables()["judgements"])[:0]},
        ["judgements", "no rows"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_table_column_row_and_remedy(tmp_path, case):
    content, words = REFUSED[case]
    with pytest.raises(InputError) as refused:
        open_logs(write(tmp_path, content))
    assert not [word for word in words if word not in str(refused.value)], str(refused.value)


def test_refuses_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        open_logs(tmp_path / "nowhere")


def test_refuses_what_is_not_parquet_or_is_cut_off(tmp_path):
    file = write(tmp_path, tables()) / "candidates.parquet"
    whole = file.read_bytes()
    for content in (b"", b"query,doc_id\n", whole[: len(whole) // 2], whole[:-1], whole[:-8] + b"\xff" * 4 + b"PAR1"):
        file.write_bytes(content)
        with pytest.raises(
            InputError, match=r"table candidates: .*candidates\.parquet is not a Parquet file or is cut"
        ):
            open_logs(tmp_path)


def test_refuses_damage_inside_the_data(tmp_path):
    content = without("judgements", "feed_views")
    content["documents"]["text"] = [f"{i}" * 500 for i in range(3)]
    file = write(tmp_path, content) / "documents.parquet"
    place = pq.ParquetFile(file).metadata.row_group(0).column(3)
    assert place.path_in_schema == "text"
    damaged = bytearray(file.read_bytes())
    start = place.dictionary_page_offset
    damaged[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"table documents, column text: .*documents\.parquet is damaged"):
        open_logs(tmp_path)


@pytest.mark.parametrize("row", [0, 2])
def test_text_that_is_not_utf8_is_named_by_row(tmp_path, row):
    content = without("judgements", "feed_views")
    texts = [b"a", b"b", b"c"]
    texts[row] = b"caf\xe9"
    latin = pa.array(texts, pa.binary())
    content["documents"]["title"] = pa.StringArray.from_buffers(3, latin.buffers()[1], latin.buffers()[2])
    message = rf"table documents, column title: .*documents\.parquet, row {row} \(counted from 0\): the text b'caf"
    with pytest.raises(InputError, match=message):
        open_logs(write(tmp_path, content))


def test_refuses_files_of_one_table_without_a_required_column_or_of_another_kind(tmp_path):
    content = tables()
    documents = pa.table(content.pop("documents"))
    folder = write(tmp_path, content) / "documents"
    folder.mkdir()
    pq.write_table(documents[:1], folder / "a.parquet")
    pq.write_table(documents[1:].drop_columns("title"), folder / "b.parquet")
    with pytest.raises(InputError, match=r"table documents, column title: missing from .*b\.parquet"):
        open_logs(tmp_path)
    pq.write_table(documents[1:], folder / "b.parquet")
    (folder / "c.csv").write_text("doc_id\n")
    with pytest.raises(InputError, match=r"c\.csv does not end in \.parquet"):
        open_logs(tmp_path)


def test_names_file_and_row_within_a_folder(tmp_path):
    content = tables()
    documents = pa.table(content.pop("documents"))
    folder = write(tmp_path, content) / "documents"
    folder.mkdir()
    pq.write_table(documents, folder / "a.parquet")
    pq.write_table(documents[2:], folder / "b.parquet")
    with pytest.raises(InputError, match=r'documents/b\.parquet, row 0 \(counted from 0\) repeats the key "doc_id d3"'):
        open_logs(tmp_path)


def test_refuses_an_empty_folder_and_a_table_in_two_places(tmp_path):
    folder = write(tmp_path, tables()) / "feed_views"
    folder.mkdir()
    with pytest.raises(InputError, match=r"both .* exist"):
        open_logs(tmp_path)
    os.unlink(tmp_path / "feed_views.parquet")
    with pytest.raises(InputError, match="holds no Parquet file"):
        open_logs(tmp_path)


def test_written_tables_are_equal_bytes_and_hold_no_column_of_nulls(tmp_path):
    table = open_logs(write(tmp_path / "a", tables())).read("candidates")
    (tmp_path / "b").mkdir()
    first = write_table(tmp_path / "a", "candidates", table).read_bytes()
    chunked = pa.concat_tables([table[:1], table[1:]])
    assert write_table(tmp_path / "b", "candidates", chunked).read_bytes() == first
    assert "liked" not in pq.read_schema(tmp_path / "b/candidates.parquet").names
    with pytest.raises(InputError, match="column stage is missing"):
        write_table(tmp_path, "candidates", table.drop_columns("stage"))
    with pytest.raises(InputError, match="column position"):
        write_table(tmp_path, "candidates", table.set_column(3, "position", pa.array(["a", "b", "c"])))


@pytest.mark.slow
def test_random_damage_is_refused_or_harmless(tmp_path):
    write(tmp_path, tables())
    assert open_logs(tmp_path).names == frozenset(tables())
    generator = random.Random(0)
    refused = 0
    for _ in range(400):
        file = tmp_path / f"{generator.choice(sorted(tables()))}.parquet"
        whole = file.read_bytes()
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 1, 2, 8, 50])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        file.write_bytes(damaged)
        try:
            logs = open_logs(tmp_path)
            assert {name: logs.read(name).num_rows for name in logs.names} == {
                name: logs.num_rows(name) for name in logs.names
            }
        except InputError:
            refused += 1
        file.write_bytes(whole)
    assert refused > 200


def test_a_file_that_must_not_be_read_is_named(write_logs, monkeypatch):
    logs = write_logs(judgements=[{"query": "red shoe", "doc_id": "d1", "grade": 1.0}])

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(InputError, match=r"documents.parquet must not be read by this user; check its permissions"):
        open_logs(logs)
