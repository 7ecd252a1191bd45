import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.hold_out import hold_out
from data.mine import MineArguments, mine
from data.tables import open_logs
from data.tables.truth import copy_truth, has_truth, read_truth, write_truth
from tests.mining_arguments import hold_out_arguments

PAIRS = [
    {"query": "red lamp", "doc_id": "red-lamp", "grade": 3.0, "shown": True},
    {"query": "red lamp", "doc_id": "hidden-lamp", "grade": 2.0, "shown": False},
]
DOCUMENTS = [
    {"doc_id": doc_id, "title": doc_id.replace("-", " ")} for doc_id in ("red-lamp", "hidden-lamp", "blue-cup")
]


@pytest.fixture
def logs(write_logs, at):
    searches, candidates = [], []
    for i in range(6):
        searches.append({"search_id": f"s{i}", "user_id": f"u{i}", "query": "Red lamp", "time": at(1000 * i)})
        for doc_id, clicked in (("red-lamp", True), ("blue-cup", False)):
            row = {"search_id": f"s{i}", "doc_id": doc_id, "stage": "shown", "clicked": clicked}
            candidates.append(row)
    return write_logs(documents=DOCUMENTS, searches=searches, candidates=candidates)


def files(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }


def test_written_and_read_again(tmp_path):
    assert not has_truth(tmp_path)
    write_truth(tmp_path, pa.Table.from_pylist(PAIRS))
    assert has_truth(tmp_path)
    assert read_truth(tmp_path).to_pylist() == PAIRS
    assert read_truth(tmp_path, ["shown"]).to_pylist() == [{"shown": True}, {"shown": False}]


def test_it_is_no_log_table(logs):
    write_truth(logs, pa.Table.from_pylist(PAIRS))
    assert open_logs(logs).names == {"documents", "searches", "candidates"}


def test_copied_unread(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "to").mkdir()
    copy_truth(tmp_path / "none", tmp_path / "to")
    assert not list((tmp_path / "to").iterdir())
    (tmp_path / "from" / "truth").mkdir(parents=True)
    (tmp_path / "from" / "truth" / "pairs.parquet").write_bytes(b"no parquet")
    copy_truth(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to" / "truth" / "pairs.parquet").read_bytes() == b"no parquet"


@pytest.mark.parametrize("content", [None, {"query": ["a"]}])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "truth").mkdir()
    file = tmp_path / "truth" / "pairs.parquet"
    if content is None:
        file.write_bytes(b"no parquet")
    else:
        pq.write_table(pa.table(content), file)
    with pytest.raises(InputError, match="no table with the columns"):
        read_truth(tmp_path)


def test_hold_out_carries_it_along_and_neither_it_nor_mining_reads_it(logs, at, tmp_path):
    """With the truth turned round, or unreadable, every byte but the truth itself stays."""
    turned = [row | {"doc_id": "blue-cup", "grade": 3.0, "shown": not row["shown"]} for row in PAIRS[:1]]
    made = {}
    for name, truth in (("right", PAIRS), ("turned", turned), ("broken", None)):
        for file in logs.glob("truth/*"):
            file.unlink()
        if truth is None:
            (logs / "truth" / "pairs.parquet").write_bytes(b"no parquet")
        else:
            (logs / "truth").rmdir() if (logs / "truth").is_dir() else None
            write_truth(logs, pa.Table.from_pylist(truth))
        split = tmp_path / name / "split"
        hold_out(hold_out_arguments(logs=str(logs), output=str(split), from_=at(3500).isoformat()))
        assert (split / "truth" / "pairs.parquet").read_bytes() == (logs / "truth" / "pairs.parquet").read_bytes()
        mine(MineArguments(logs=str(split), output=str(tmp_path / name / "labels")))
        of_split = {file: digest for file, digest in files(split).items() if not file.startswith("truth")}
        made[name] = (of_split, files(tmp_path / name / "labels"))
    assert made["right"] == made["turned"] == made["broken"]
    assert any(file.endswith(".parquet") for file in made["right"][1])
