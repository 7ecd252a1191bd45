"""The label table in one file and in several."""

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.labels import files
from data.labels.assign_levels import LABEL_SCHEMA
from data.labels.files import part_starts, write_labels
from data.labels.table import read_labels

QUERIES = [*(f"q{i}" for i in range(20)), "été", "苹果", "😀", "\uffee", "z\\'\""]


def label_rows(queries=QUERIES, documents=9):
    """Query i has i % documents + 1 documents."""
    return [
        {"query": query, "doc_id": f"d{j}", "level": j % 6, "source": "search_log", "score": None, "evidence": "[]"}
        for i, query in enumerate(queries)
        for j in range(i % documents + 1)
    ]


def written(folder, rows, **options):
    folder.mkdir()
    connection = ibis.duckdb.connect()
    write_labels(
        connection, connection.create_table("rows", pa.Table.from_pylist(rows, LABEL_SCHEMA)), folder, **options
    )
    return sorted(folder.rglob("*.parquet"))


def keys(file):
    table = pq.read_table(file)
    return list(zip(table["query"].to_pylist(), table["doc_id"].to_pylist(), strict=True))


def test_parts_hold_the_rows_of_the_single_file_in_its_order(tmp_path):
    (single,) = written(tmp_path / "one", label_rows())
    parts = written(tmp_path / "parts", label_rows(), partitions=4)
    assert single.name == "labels.parquet"
    assert [str(part.relative_to(tmp_path / "parts")) for part in parts] == [
        f"labels/part-{i:05d}.parquet" for i in range(4)
    ]
    assert pa.concat_tables(map(pq.read_table, parts)).equals(pq.read_table(single))
    assert keys(single) == sorted(keys(single))


def test_the_rows_of_a_query_lie_in_one_part_and_parts_are_about_as_large(tmp_path):
    rows = label_rows([f"query {i}" for i in range(500)])
    parts = [keys(part) for part in written(tmp_path / "parts", rows, partitions=5)]
    seen = [{query for query, _ in part} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 500
    assert all(abs(len(part) - len(rows) / 5) <= 9 for part in parts)


def test_the_bytes_do_not_depend_on_the_rows_order(tmp_path):
    one, other = (
        written(tmp_path / name, rows, partitions=3) for name, rows in (("a", label_rows()), ("b", label_rows()[::-1]))
    )
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


@pytest.mark.parametrize(("queries", "parts"), [(["a"], 1), (["a", "b"], 2), (["a", "b", "c"], 3)])
def test_there_are_no_more_parts_than_queries(tmp_path, queries, parts):
    assert len(written(tmp_path / "parts", label_rows(queries, documents=1), partitions=100)) == parts


def test_one_query_with_most_of_the_rows_makes_a_long_part_and_no_empty_one(tmp_path):
    rows = label_rows([f"a{i}" for i in range(10)], documents=1)
    rows += [{**rows[0], "query": "m", "doc_id": f"d{i}"} for i in range(1000)]
    rows += label_rows([f"z{i}" for i in range(10)], documents=1)
    parts = [keys(part) for part in written(tmp_path / "parts", rows, partitions=4)]
    assert [len(part) for part in parts] == [1010, 10]


def test_batches_are_cut_where_parts_begin(tmp_path):
    rows = label_rows()
    (single,) = written(tmp_path / "one", rows, row_group_rows=2)
    parts = written(tmp_path / "parts", rows, partitions=7, row_group_rows=2)
    assert len(parts) == 7
    assert pa.concat_tables(map(pq.read_table, parts)).equals(pq.read_table(single))


def test_starts_are_quantiles_of_a_sample_that_depends_on_the_rows_alone():
    sample = {"sampled_queries": 20, "sampled_queries_per_part": 1}
    table = pa.Table.from_pylist(label_rows([f"{i:04d}" for i in range(1000)], documents=1), LABEL_SCHEMA)
    starts = part_starts(ibis.memtable(table), 4, **sample)
    assert len(starts) == 3
    assert (
        starts == sorted(starts) == part_starts(ibis.memtable(table.take(list(range(len(table)))[::-1])), 4, **sample)
    )
    assert all(100 < int(there) - int(here) < 500 for here, there in zip(["0000", *starts], [*starts, "1000"]))


@pytest.mark.parametrize("starts", [[], ["b"], ["b", "d"], ["b", "d", "f"], ["b", "d", "f", "h", "j"]])
def test_the_part_of_a_query_is_that_of_a_look_up_in_the_starts(starts):
    queries = list("abcdefghijk")
    table = ibis.memtable(pa.table({"query": queries}))
    found = table.select("query", part=files._part(table.query, starts, 0)).to_pyarrow().to_pylist()
    assert {row["query"]: row["part"] for row in found} == {q: sum(start <= q for start in starts) for q in queries}


def test_readers_take_both_forms(tmp_path):
    rows = label_rows()
    written(tmp_path / "one", rows)
    written(tmp_path / "parts", rows, partitions=4)
    one, parts = (
        read_labels(tmp_path / name).sort_by([("query", "ascending"), ("doc_id", "ascending")])
        for name in ("one", "parts")
    )
    assert one.equals(parts)
    assert len(one) == len(rows)
