"""The query of the example: it is chosen by the rule, and shown only with the cells that it was made from."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launch.comparison.evidence.example import choose_example, is_shown, read_example, update_example
from launch.comparison.evidence.lists import Lists, keep_lists, kept_lists, read_lists
from launch.evaluation.files import RELEVANT, RETRIEVED
from tests.launch.comparison.evaluations import write_values
from tests.launch.comparison.results.made_up import made_up_result

TITLES = {"d1": "Scarlet boots", "d2": "Ruby pumps", "d3": "Crimson heels"}


def lists(recall: dict[str, float], ranks: Mapping[str, Sequence[int | None]]) -> Lists:
    return Lists(
        recall=recall,
        first={query: [{"title": f"first of {query}", "relevant": False}] for query in recall},
        relevant={
            query: [{"doc_id": f"d{n}", "title": f"title {n}", "rank": rank} for n, rank in enumerate(of_query, 1)]
            for query, of_query in ranks.items()
        },
    )


def test_the_largest_gain_is_chosen_among_queries_with_three_relevant_documents():
    wider = lists({"few": 1.0, "most": 1.0, "some": 1.0}, {"few": [1, 2], "most": [100, 7, 30], "some": [1, 2, 3]})
    narrower = lists(
        {"few": 0.0, "most": 1 / 3, "some": 2 / 3}, {"few": [None] * 2, "most": [101, None, 50], "some": [1, 2, 400]}
    )
    found = choose_example(wider, narrower, test="ct", inputs="a")
    assert found is not None
    assert (found.query, found.relevant, found.gained_in_all) == ("most", 3, 2)
    assert found.recall == {"crops": 1.0, "fs_lr": 1 / 3}
    assert list(found.gained) == [
        {"title": "title 2", "rank": 7, "other_rank": None},
        {"title": "title 1", "rank": 100, "other_rank": 101},
    ]


def test_of_equal_gains_the_one_with_more_relevant_documents_is_chosen():
    wider = lists({"a": 1.0, "b": 1.0}, {"a": [1, 2, 3], "b": [1, 2, 3, 4]})
    narrower = lists({"a": 0.5, "b": 0.5}, {"a": [1, None, None], "b": [1, 2, None, None]})
    found = choose_example(wider, narrower, test="ct", inputs="a")
    assert found is not None
    assert found.query == "b"


def test_without_a_gain_there_is_no_example():
    same = lists({"a": 0.5}, {"a": [1, None, None]})
    assert choose_example(same, same, test="ct", inputs="a") is None


def evaluation(folder, ranks: Sequence[int | None]):
    """Writes an evaluation with one query and three relevant documents."""
    recall = sum(rank is not None for rank in ranks) / 3
    write_values(folder, [("encoder", "hidden_relevant", "all", "red shoe", "recall@100", recall)])
    common = {"test": "hidden_relevant", "query": "red shoe", "perspective": "truth"}
    retrieved = [
        {**common, "system": system, "rank": rank, "doc_id": doc, "title": TITLES[doc], "score": 0.0, "grade": 1.0}
        | {"relevant": True}
        for system, rank, doc in (("encoder", 2, "d2"), ("encoder", 1, "d1"), ("bm25", 1, "d3"))
    ]
    relevant = [
        {**common, "doc_id": doc, "title": title, "grade": 1.0, "encoder_rank": rank, "bm25_rank": None, "seen": False}
        for (doc, title), rank in zip(TITLES.items(), ranks, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(retrieved, schema=RETRIEVED), folder / "retrieved.parquet")
    pq.write_table(pa.Table.from_pylist(relevant, schema=RELEVANT), folder / "relevant.parquet")
    return folder


@pytest.fixture
def cells(tmp_path):
    """Returns the results of both cells, whose lists are kept in the folders of their runs."""
    results = []
    for system, ranks in (("crops", [1, 2, 3]), ("fs_lr", [1, None, None])):
        result = made_up_result(system, "transformer", 0, {"ct_recall@100": [0.5]}, inputs={"config": system})
        folder = tmp_path / "runs" / f"{result.name}-1"
        folder.mkdir(parents=True)
        keep_lists(evaluation(tmp_path / "evaluation" / system, ranks), folder, result.inputs)
        results.append(result)
    return results


def test_an_example_is_found_in_the_kept_lists_and_read_with_its_cells_alone(tmp_path, cells):
    update_example(tmp_path, tmp_path / "runs", cells)
    found = read_example(tmp_path, cells)
    assert found is not None
    assert (found.test, found.query) == ("hidden_relevant", "red shoe")
    assert [document["title"] for document in found.first["crops"]] == ["Scarlet boots", "Ruby pumps"]
    assert [document["title"] for document in found.gained] == ["Ruby pumps", "Crimson heels"]
    assert read_example(tmp_path, cells[:1]) is None
    other = made_up_result("fs_lr", "transformer", 0, {"ct_recall@100": [0.5]}, inputs={"config": "another"})
    assert read_example(tmp_path, [cells[0], other]) is None


def test_an_example_stays_when_the_lists_are_gone(tmp_path, cells):
    update_example(tmp_path, tmp_path / "runs", cells)
    update_example(tmp_path, tmp_path / "nothing", cells)
    assert read_example(tmp_path, cells) is not None
    assert read_example(tmp_path / "nothing", cells) is None


def test_lists_of_other_inputs_or_with_a_file_missing_are_not_taken(tmp_path, cells):
    runs = tmp_path / "runs"
    kept = kept_lists(runs, "crops-transformer-0", {"config": "crops"})
    assert kept is not None
    assert read_lists(kept, "ct") is None
    assert kept_lists(runs, "crops-transformer-0", {"config": "other"}) is None
    (kept / "relevant.parquet").unlink()
    assert kept_lists(runs, "crops-transformer-0", {"config": "crops"}) is None


def test_the_lists_of_two_cells_alone_are_kept():
    assert is_shown("crops", "transformer", 0)
    assert is_shown("fs_lr", "transformer", 0)
    assert not is_shown("fs_lr", "hashed", 0)
    assert not is_shown("crops", "transformer", 1)
    assert not is_shown("nce", "transformer", 0)
