"""What holds for every source: bytes that repeat, wrong input that is named, counts of real samples where they are."""

import importlib

import pytest

from crops_jax.errors import InputError
from tests.data.sources.conversions import converted
from tests.data.sources.raw_folders import (
    esci,
    kuaisar,
    kuaisearch,
    mapped,
    msmarco,
    multi_cpr,
    qbqtc,
    qilin,
    recflow,
    ubi,
    wands,
)
from tests.paths import SHARED_DATA

MAKERS = [kuaisearch, qilin, kuaisar, recflow, esci, msmarco, wands, multi_cpr, qbqtc, ubi, mapped]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_same_input_gives_the_same_bytes(tmp_path, make):
    raw = make(tmp_path / "raw")
    source = "mapping" if make is mapped else make.__name__
    for name in ("a", "b"):
        converted(source, raw, tmp_path, name)
    a, b = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert a == b


@pytest.mark.parametrize("make", MAKERS[:-1], ids=lambda make: make.__name__)
def test_a_wrong_folder_is_refused_with_the_file_that_is_missing(tmp_path, make):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such"):
        converted(make.__name__, tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match=r"no file .*it holds nothing; check --input"):
        converted(make.__name__, tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    ("make", "name", "old", "new", "message"),
    [
        (kuaisar, "src_inter.csv", "keyword", "words", r"src_inter\.csv: column keyword is missing, it has user_id"),
        (kuaisar, "rec_inter.csv", "1500.0", "long", r"rec_inter\.csv: column playing_time holds 'long'.*no DOUBLE"),
        (kuaisar, "item_features.csv", None, "", r"item_features\.csv is empty"),
        (kuaisearch, "recall.jsonl", '"query"', '"words"', r"recall\.jsonl: column query is missing"),
        (kuaisearch, "recall.jsonl", None, '{"user_id": 1', r"recall\.jsonl is not jsonl or is cut off"),
        (
            kuaisearch,
            "relevance.jsonl",
            '"score": 2',
            '"score": "x"',
            r"does not hold what .*relevance\.jsonl.* line 1",
        ),
        (
            esci,
            "shopping_queries_dataset_products.parquet",
            None,
            "PAR1",
            r"products\.parquet is not parquet or is cut",
        ),
        (recflow, "all_stage/2024-01-13.feather", None, "FEA1", r"13\.feather is not feather or is cut off"),
        (msmarco, "qrels.train.tsv", "5\t0\t1\t1", "5 0 1 1", r"qrels\.train\.tsv: does not hold what .*Line: 1"),
        (msmarco, "collection.tsv.gz", None, None, r"does not hold what .*"),
    ],
)
def test_wrong_input_is_refused_by_file_and_column(tmp_path, make, name, old, new, message):
    raw = make(tmp_path / "raw")
    file = raw / name
    if new is None:
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.write_text(new if old is None else file.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        converted(make.__name__, raw, tmp_path)
    assert not (tmp_path / "logs").exists()


def test_every_adapter_says_what_it_has_lacks_and_feeds():
    for make in MAKERS[:-1]:
        text = importlib.import_module(f"data.sources.{make.__name__}").__doc__
        assert all(word in text for word in ("Has:", "Lacks:", "perspective" if "no perspective" in text else "feeds"))
        assert ("Untested on the real files" in text) != ("Tested on" in text)


@pytest.mark.parametrize(
    ("source", "folder", "tables", "dropped"),
    [
        (
            "kuaisearch",
            "kuaisearch_demo",
            {"documents": 400, "searches": 200, "candidates": 2, "judgements": 200},
            {"candidates": {"doc_id not in documents": 25_428}},
        ),
        ("esci", "esci_sample", {"documents": 16, "judgements": 16}, {}),
        (
            "qbqtc",
            "qbqtc_dev",
            {"documents": 19_317, "judgements": 19_944},
            {"judgements": {"repeated query, doc_id": 56}},
        ),
    ],
)
def test_real_samples_have_the_counts_of_their_description(tmp_path, source, folder, tables, dropped):
    if not (SHARED_DATA / folder).is_dir():
        pytest.skip(f"{SHARED_DATA / folder} is not there")
    logs, outcome = converted(source, SHARED_DATA / folder, tmp_path)
    assert outcome["tables"] == tables
    assert outcome["dropped"] == dropped
    grades = logs.read("judgements").column("grade").to_pylist()
    if source == "kuaisearch":
        assert [grades.count(grade) for grade in range(4)] == [17, 40, 76, 67]
    else:
        assert set(grades) <= {0, 1, 2, 3}
