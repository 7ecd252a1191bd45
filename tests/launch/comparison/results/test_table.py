"""The table: its columns, the rows over all seeds, and the family of its differences."""

import csv

import numpy as np
import pytest

from crops_jax.errors import InputError
from crops_jax.retrieval.intervals import bootstrap_mean
from launch.comparison.measures import HIDDEN
from launch.comparison.results.files import Result
from launch.comparison.results.table import COLUMNS, RATES_DIFFER, compare_results, write_table
from tests.launch.comparison.results.made_up import made_up_result

QUERIES = 24
BASE = np.linspace(0.1, 0.8, QUERIES)


def result(system: str, architecture: str, seed: int, values: np.ndarray, *, queries: str = "q", **figures) -> Result:
    measured = {"ct_recall@100": values.tolist(), "ct_recall@10": (values / 2).tolist(), "ndcg@10": [0.25, 0.5]}
    return made_up_result(
        system, architecture, seed, measured, fingerprint=queries, means_alone=["ndcg@10"], figures=figures
    )


RESULTS = [
    result("crops", "transformer", 1, BASE + 0.1, step_seconds=2.0),
    result("crops", "transformer", 0, BASE, step_seconds=1.0),
    result("crops", "hashed", 0, BASE),
    result("nce", "hashed", 0, BASE - 0.05),
    result("bm25", "none", 0, BASE[::-1].copy()),
    result("infonce", "transformer", 0, BASE + 0.15, step_seconds=3.0),
]


@pytest.fixture
def comparison():
    return compare_results(RESULTS, reference="crops", samples=400)


def read(file):
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_table_has_a_row_for_each_cell_and_one_for_all_its_seeds(tmp_path, comparison):
    write_table(tmp_path, comparison)
    rows = read(tmp_path / "table.csv")
    assert tuple(rows[0]) == COLUMNS == ("system", "architecture", "seed", "metric", "value", "low", "high")
    crops = [row for row in rows if (row["system"], row["architecture"]) == ("crops", "transformer")]
    assert [row["seed"] for row in crops if row["metric"] == "ct_recall@100"] == ["0", "1", "all"]
    values = [float(row["value"]) for row in crops if row["metric"] == "ct_recall@100"]
    assert values == pytest.approx([0.45, 0.55, 0.5])
    cost = [(row["seed"], row["value"], row["low"]) for row in crops if row["metric"] == "step_seconds"]
    assert cost == [("0", "1.0", ""), ("1", "2.0", ""), ("all", "1.5", "")]
    assert list(dict.fromkeys(row["system"] for row in rows)) == ["bm25", "nce", "crops", "infonce"]


def test_intervals_are_those_of_the_bootstrap_over_queries(tmp_path, comparison):
    of_one_seed = comparison.cells["crops", "transformer", 1, "ct_recall@100"]
    expected = bootstrap_mean(BASE + 0.1, samples=400)
    assert (of_one_seed.low, of_one_seed.high) == pytest.approx((expected.low, expected.high))
    of_all = comparison.means["crops", "transformer", "ct_recall@100"]
    expected = bootstrap_mean(BASE + 0.05, samples=400)
    assert (of_all.value, of_all.low, of_all.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert of_all.seed_spread == pytest.approx(0.1 / np.sqrt(2))


def test_metrics_of_which_only_the_mean_is_known_have_no_interval(tmp_path, comparison):
    assert comparison.metrics == ["ct_recall@100", "ct_recall@10"]
    write_table(tmp_path, comparison)
    rows = [row for row in read(tmp_path / "table.csv") if row["system"] == "crops" and row["metric"] == "ndcg@10"]
    assert [row["seed"] for row in rows] == ["0", "1", "all", "0", "all"]
    assert {(row["value"], row["low"], row["high"]) for row in rows} == {("0.375", "", "")}


def test_the_time_of_each_cell_is_in_the_table(tmp_path, comparison):
    write_table(tmp_path, comparison)
    rows = [row for row in read(tmp_path / "table.csv") if row["metric"] == "cell_seconds"]
    assert len([row for row in rows if row["seed"] != "all"]) == len(RESULTS)
    assert {row["value"] for row in rows} == {"60.0"}


def test_differences_are_to_the_reference_of_the_same_architecture(tmp_path, comparison):
    """The family has the main metrics only; the reference is not compared with itself."""
    assert set(comparison.differences) == {
        ("bm25", "none", "ct_recall@100"),
        ("nce", "hashed", "ct_recall@100"),
        ("infonce", "transformer", "ct_recall@100"),
    }
    assert comparison.differences["nce", "hashed", "ct_recall@100"].estimate.value == pytest.approx(-0.05)
    assert comparison.differences["infonce", "transformer", "ct_recall@100"].estimate.value == pytest.approx(0.1)
    write_table(tmp_path, comparison)
    rows = {row["system"]: row for row in read(tmp_path / "differences.csv")}
    assert rows["bm25"]["reference_architecture"] == "transformer"
    assert rows["nce"]["verdict"] == "worse"
    assert rows["infonce"]["verdict"] == "better"
    assert rows["bm25"]["verdict"] == "no difference shown"
    assert float(rows["nce"]["p_holm"]) == pytest.approx(3 * 2 / 401, abs=1e-6)


def test_there_is_no_verdict_between_systems_of_different_learning_rates(tmp_path):
    """Systems without a rate, such as BM25, can be compared with any."""
    factors = {"crops": 1.0, "nce": 1.0, "infonce": 0.5}
    cells = [result(name, "transformer", 0, BASE - 0.1 * place, learning_rate_factor=factor)
             for place, (name, factor) in enumerate(factors.items())]  # fmt: skip
    write_table(tmp_path, compare_results([*cells, RESULTS[4]], reference="crops", samples=400))
    rows = {row["system"]: row for row in read(tmp_path / "differences.csv")}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "bm25": "no difference shown",
        "nce": "worse",
        "infonce": RATES_DIFFER,
    }
    assert float(rows["infonce"]["value"]) == pytest.approx(-0.2)


def test_without_the_reference_there_are_means_and_no_differences():
    found = compare_results(RESULTS[3:5], reference="crops", samples=400)
    assert found.differences == {}
    assert len(found.means) == 4


def test_a_small_number_of_samples_is_raised_to_what_the_family_needs():
    assert compare_results(RESULTS, reference="crops", samples=100).differences


def test_values_of_different_queries_are_not_compared():
    other = result("fs_lr", "hashed", 0, BASE, queries="other")
    with pytest.raises(InputError, match=r"crops-transformer-1 and fs_lr-hashed-0 have ct_recall@100"):
        compare_results([*RESULTS, other], reference="crops", samples=400)


def test_a_metric_that_a_system_lacks_is_left_out_for_that_system_alone():
    lacking = made_up_result("fs_lr", "hashed", 0, {HIDDEN: [0.5] * QUERIES}, fingerprint="h")
    found = compare_results([*RESULTS, lacking], reference="crops", samples=400)
    assert ("fs_lr", "hashed", "ct_recall@100") not in found.means
    assert found.means["fs_lr", "hashed", HIDDEN].value == 0.5
    assert HIDDEN in found.metrics
