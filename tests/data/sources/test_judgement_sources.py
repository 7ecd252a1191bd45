"""Adapters of judged pairs, on tiny hand-made folders: grades and splits."""

from tests.data.sources.conversions import converted, rows
from tests.data.sources.raw_folders import esci, msmarco, multi_cpr, qbqtc, wands


def test_esci_labels_become_grades_and_pages_belong_to_a_country(tmp_path):
    logs, outcome = converted("esci", esci(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "us:B1", "title": "Kettle", "text": "steel", "keywords": "Acme"},
        {"doc_id": "de:B1", "title": "Wasserkocher", "text": "<b>heiß</b>", "keywords": ""},
    ]
    assert rows(logs, "judgements") == [
        {"query": "kettle", "doc_id": "us:B1", "grade": 3.0, "split": "train"},
        {"query": "kettle", "doc_id": "us:B2", "grade": 1.0, "split": "test"},
    ]
    assert outcome["dropped"] == {"judgements": {"grade: null in a required column": 1}}


def test_msmarco_small_dev_is_the_test_split(tmp_path):
    logs, outcome = converted("msmarco", msmarco(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents")[0] == {"doc_id": "0", "title": "", "text": 'The "Manhattan" project,'}
    assert [(row["query"], row["doc_id"], row["split"]) for row in rows(logs, "judgements")] == [
        ("how", "1", "test"),
        ("what", "0", "dev"),
        ("who?", "1", "train"),
    ]
    assert outcome["dropped"] == {"judgements": {"query not in queries": 1, "repeated query, doc_id": 1}}


def test_wands_files_are_separated_by_tabs(tmp_path):
    logs, outcome = converted("wands", wands(tmp_path / "raw"), tmp_path)
    (document,) = rows(logs, "documents")
    assert document["text"] == 'soft, "warm"\na:b\nc:d'
    assert document["keywords"].split() == ["Sofas", "Home", "Sofas"]
    assert [(row["doc_id"], row["grade"]) for row in rows(logs, "judgements")] == [("1", 2.0), ("2", 1.0)]
    assert outcome["dropped"] == {"judgements": {"query not in query.csv": 1}}


def test_multi_cpr_dev_is_the_test_split(tmp_path):
    logs, _ = converted("multi_cpr", multi_cpr(tmp_path / "raw"), tmp_path)
    assert rows(logs, "judgements") == [
        {"query": "尼康z62", "doc_id": "1", "grade": 1.0, "split": "test"},
        {"query": "相机", "doc_id": "2", "grade": 1.0, "split": "train"},
    ]


def test_qbqtc_titles_are_documents_and_a_pair_in_several_files_is_no_training_pair(tmp_path):
    logs, outcome = converted("qbqtc", qbqtc(tmp_path / "raw"), tmp_path)
    titles = {row["doc_id"]: row["title"] for row in rows(logs, "documents")}
    assert sorted(titles.values()) == ["感冒吃什么药", "育儿", "英雄"]
    assert [(row["query"], titles[row["doc_id"]], row["grade"], row["split"]) for row in rows(logs, "judgements")] == [
        ("感冒 吃什么", "育儿", 0, "test"),
        ("英雄", "英雄", 2, "dev"),
        ("感冒 吃什么", "感冒吃什么药", 1, "dev"),
        ("感冒 吃什么", "英雄", 0, "train"),
    ]
    assert outcome["dropped"]["judgements"] == {"without a grade of 0, 1 or 2": 1, "repeated query, doc_id": 2}


def test_one_file_of_qbqtc_alone_has_no_split(tmp_path):
    raw = qbqtc(tmp_path / "raw")
    for name in ("train.json", "test.json"):
        (raw / name).unlink()
    logs, _ = converted("qbqtc", raw, tmp_path)
    assert all("split" not in row for row in rows(logs, "judgements"))
