"""The tables of the comparison are what launch.compare makes of committed results; without them there is none."""

from typing import Any

import numpy as np
import pytest

from benchmarks.figures.comparisons import COMPARISONS, SAMPLES, claims_table, compared, comparison_markdown
from benchmarks.figures.pages import rewritten
from benchmarks.figures.registry import markdown
from benchmarks.figures.results import FiguresError
from launch.comparison.presentation.claims import claimed_pairs
from launch.comparison.results.files import stored_results, write_result
from launch.comparison.results.setting import Setting, write_setting
from launch.comparison.results.table import compare_results
from tests.launch.comparison.results.made_up import made_up_result

CT, QR = "ct_recall@100", "qr_recall@100"
GAINS = {"bm25": 0.0, "fs_lr": 0.1, "crops": 0.2, "infonce": 0.15}
RATES = {name: {"learning_rate_factor": rate} for name, rate in {"fs_lr": 1.0, "crops": 1.0, "infonce": 0.5}.items()}
SEEDS = {"bm25": 1, "fs_lr": 3, "crops": 3, "infonce": 2}


def write_cells(results, *, gains=GAINS):
    """Writes the cells of one to three seeds."""
    inputs = {"split": "a"}
    base = np.random.default_rng(0).random(40) / 2
    for system, gain in gains.items():
        towers = "none" if system == "bm25" else "transformer"
        for seed in range(SEEDS[system]):
            values = {metric: (base + gain + seed / 100).tolist() for metric in (CT, QR)}
            write_result(
                results / f"{system}-{towers}-{seed}.json",
                made_up_result(system, towers, seed, values, inputs=inputs, figures=RATES.get(system, {})),
            )
    command = "python -m launch.compare --output TABLE --results RESULTS"
    write_setting(results, Setting(command=command, arguments={}, inputs=inputs, shared_seconds=3300.0))


@pytest.fixture
def folder(tmp_path):
    """Returns docs/results with the cells of one world."""
    write_cells(tmp_path / "generated_world")
    return tmp_path


def test_the_figures_are_those_of_launch_compare(folder):
    results = stored_results(folder / "generated_world", among={})
    expected = compare_results(results, reference="crops", samples=SAMPLES, pairs=claimed_pairs())
    found = compared("generated_world", folder)
    assert found is not None
    assert (found.comparison.means, found.comparison.differences) == (expected.means, expected.differences)
    mean = expected.means["crops", "transformer", CT]
    with_spread = f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}; sd 0.010)"
    assert with_spread in comparison_markdown("generated_world", folder=folder)


def test_the_main_table_has_the_systems_in_order_with_seeds_command_and_time(folder):
    lines = comparison_markdown("generated_world", folder=folder).splitlines()
    assert lines[0] == "| system | seeds | CT Recall@100 | QR Recall@100 |"
    assert [line.split("`")[1] for line in lines[2:5]] == ["crops", "fs_lr", "bm25"]
    assert lines[5] == ""
    assert lines[6].startswith("Means over 2 to 3 seeds (one for `bm25`), with")
    assert "With fewer than 3 seeds the verdicts are provisional." in lines[6]
    assert lines[6].endswith("1 chose 0.5, 2 chose 1 (systems, on dev).")
    command = "`python -m launch.compare --output TABLE --results RESULTS`"
    assert f"{command}; 9 cells, whose times add up to 1.1 hours on A processor" in lines[6]


def test_each_ablation_has_a_table_of_the_systems_that_were_run(folder):
    text = comparison_markdown("generated_world_ablations", folder=folder)
    headings = [line for line in text.splitlines() if line.endswith(":")]
    assert headings == [
        "Ablation of the perspectives, cumulative and each alone:",
        "Ablation of the loss:",
    ]
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| `")]
    assert rows == [["| `crops`", "3"], ["| `fs_lr`", "3"], ["| `crops`", "3"], ["| `infonce`", "2"]]


def test_the_front_page_names_the_claims_by_verdict(folder):
    text = comparison_markdown("generated_world_headline", folder=folder)
    lists = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line.partition(":**")[0] for line in lists] == [
        "- **Held (2)",
        "- **Not shown (1)",
        "- **Too few seeds (1)",
        "- **Not run (22)",
        "- **Cannot be tested here (1)",
    ]
    assert lists[0].removeprefix("- **Held (2):** ") == (
        "CroPS retrieves more than BM25 and FS-LR, which learns from the search log alone."
    )
    assert lists[2].endswith("H-InfoNCE is better than InfoNCE.")
    assert "CroPS retrieves more than NCE, DPR, ANCE, ADORE+STAR and TriSampler. " in lists[3]
    assert len(text.splitlines()) <= 13


def test_a_claim_that_is_held_in_one_metric_alone_says_so(folder):
    results, inputs = folder / "generated_world", {"split": "a"}
    values = np.random.default_rng(0).random(40) / 2
    for seed in range(3):
        ct, qr = values + 0.2 + seed / 100, values + seed / 100  # as good as crops in CT, worse in QR
        metrics = {CT: ct.tolist(), QR: qr.tolist()}
        result = made_up_result("nce", "transformer", seed, metrics, inputs=inputs, figures=RATES["crops"])
        write_result(results / f"nce-transformer-{seed}.json", result)
    text = comparison_markdown("generated_world_headline", folder=folder)
    assert "CroPS retrieves more than NCE (shown in QR Recall@100 alone)." in text


def write_real(folder, name, *, gains, metrics=("ndcg@10", "recall@100")):
    inputs = {"split": "a"}
    base = np.random.default_rng(0).random(40) / 2
    for system, gain in gains.items():
        values = {metric: (base + gain).tolist() for metric in metrics}
        towers = "none" if system == "bm25" else "transformer"
        write_result(
            folder / name / f"{system}-{towers}-0.json", made_up_result(system, towers, 0, values, inputs=inputs)
        )
    setting = Setting(
        command=f"python -m launch.compare --real {name}",
        arguments={"real": name},
        inputs=inputs,
        shared_seconds=60.0,
        left_out={"reranked": "no clicks"},
    )
    write_setting(folder / name, setting)


def test_the_table_of_real_data_has_the_first_metric_of_each_set(tmp_path):
    write_real(tmp_path, "bestbuy", gains={"bm25": 0.0, "nce": 0.3}, metrics=("clicked_ndcg@10",))
    for name in ("scifact", "icecat"):
        write_real(tmp_path, name, gains={"bm25": 0.1, "graded": 0.2})
    assert comparison_markdown("real_headline", folder=tmp_path) == ""
    write_real(tmp_path, "trec_session", gains={"graded": 0.25})
    compared.cache_clear()
    rows = [
        [cell.strip().partition(" (")[0] if place else cell.strip() for place, cell in enumerate(line.split("|")[1:-1])]
        for line in comparison_markdown("real_headline", folder=tmp_path).splitlines()
    ]
    assert rows[0] == [
        "system",
        "`bestbuy`, NDCG@10",
        "`scifact`, NDCG@10",
        "`icecat`, NDCG@10",
        "`trec_session`, NDCG@10",
    ]
    mean = np.random.default_rng(0).random(40).mean() / 2
    assert rows[2] == ["`bm25`", *(f"{mean + gain:.3f}" for gain in (0.0, 0.1, 0.1)), "-"]
    assert rows[6] == ["`graded`", "-", *(f"{mean + gain:.3f}" for gain in (0.2, 0.2, 0.25))]


def test_real_data_has_its_own_metrics_and_differences(tmp_path):
    write_real(tmp_path, "scifact", gains={"bm25": 0.0, "graded": 0.2})
    lines = comparison_markdown("real_scifact", folder=tmp_path).splitlines()
    assert lines[0] == "| system | seeds | NDCG@10 (judged) | Recall@100 (judged) |"
    assert [line.split("`")[1] for line in lines[2:4]] == ["graded", "bm25"]
    differences = [line for line in lines if line.startswith("| `bm25` | NDCG@10")]
    assert differences == ["| `bm25` | NDCG@10 (judged) | -0.200 (-0.200 to -0.200) | 40 | worse |"]
    assert lines[-1].endswith("Left out: reranked (no clicks).")
    write_real(tmp_path, "scifact", gains={"bm25": 0.0, "graded": 0.2, "fusion": 0.3})
    compared.cache_clear()
    lines = comparison_markdown("real_scifact", folder=tmp_path).splitlines()
    fused = "| `fusion` minus `bm25` | NDCG@10 (judged) | +0.300 (+0.300 to +0.300) | 40 | better |"
    assert lines.count(fused) == 1


def test_differences_at_other_learning_rates_say_whether_they_have_one_sign(folder):
    write_cells(folder / "generated_world_rate_half", gains=GAINS | {"crops": 0.15})
    write_cells(folder / "generated_world_rate_twice", gains=GAINS | {"crops": 0.05})
    lines = comparison_markdown("generated_world_rates", folder=folder).splitlines()
    row = "| `crops` minus `fs_lr` | CT Recall@100 | +0.050 (+0.050 to +0.050) | +0.100 (+0.100 to +0.100) "
    assert lines[2] == row + "| -0.050 (-0.050 to -0.050) | no |"
    write_cells(folder / "generated_world_rate_twice", gains=GAINS | {"crops": 0.11})
    compared.cache_clear()
    lines = comparison_markdown("generated_world_rates", folder=folder).splitlines()
    assert lines[2] == row + "| +0.010 (+0.010 to +0.010) | yes |"
    assert lines[-1].endswith("3 at 0.5, 3 at 1, 3 at 2 times the rate.")


def test_the_sources_of_labels_have_their_precision_by_judges_and_by_the_truth(folder):
    assert comparison_markdown("generated_world_labels", folder=folder) == ""
    gain = {"positives": 12, "only_here": 3}
    by_judges = {"before": {"pairs": 9, "judged": 4, "value": 0.75, "low": 0.5, "high": 1.0, "queries": 3}}
    unjudged = {"pairs": 5, "judged": 0, "value": None, "low": None, "high": None, "queries": 0}
    labels: dict[str, Any] = {"perspectives": {"query_level": gain}}
    labels["precision"] = {"sources": {"query_level": {**by_judges, "after": unjudged}}}
    labels["precision_by_truth"] = {"query_level": {"pairs": 10, "relevant": 9, "value": 0.9}}
    labels["precision_by_truth"]["shown_not_clicked"] = {"pairs": 8, "value": 0.5, "low": 0.25, "high": 0.625}
    setting = Setting(command="", arguments={}, inputs={"split": "a"}, shared_seconds=1.0, labels=labels)
    write_setting(folder / "generated_world", setting)
    compared.cache_clear()
    lines = comparison_markdown("generated_world_labels", folder=folder).splitlines()
    assert lines[2] == "| `query_level` | 12 | 3 | 0.750 (0.500 to 1.000) of 4 | - | 0.900 of 10 |"
    assert lines[3] == "| `shown_not_clicked` | - | - | - | - | 0.500 (0.250 to 0.625) of 8 |"


def test_runs_of_one_system_are_compared_by_their_seeds(folder):
    """The seeds of write_cells differ by the same amount for every query."""
    lines = comparison_markdown("generated_world_seeds", folder=folder).splitlines()
    # fs_lr and crops have three pairs of seeds each, and infonce has one.
    assert lines[2:] == ["| CT Recall@100 | 7 | 7 | 0.4 |", "| QR Recall@100 | 7 | 7 | 0.4 |"]


def test_the_figures_of_bm25_and_nce_stand_beside_their_targets(folder):
    write_cells(folder / "generated_world", gains={"bm25": 0.2})
    compared.cache_clear()
    lines = comparison_markdown("generated_world_targets", folder=folder).splitlines()
    ct = np.random.default_rng(0).random(40).mean() / 2 + 0.2
    assert lines[2] == f"| `bm25_ct_recall@100` | 0.43 ± 0.05 | {ct:.3f} | yes |"
    assert lines[3] == f"| `bm25_qr_recall@100` | 0.23 ± 0.05 | {ct:.3f} | no |"
    assert len(lines) == 4


def test_the_claims_have_their_differences_and_verdicts(folder):
    found = compared("generated_world", folder)
    assert found is not None
    rows = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1:] for row in claims_table(found).splitlines()}
    evidence, verdict = rows["CroPS retrieves more than BM25"]
    assert verdict == "held |"
    assert evidence.startswith("CT Recall@100 +0.210 (")
    assert rows["CroPS retrieves more than NCE"][1] == "not run |"
    write_cells(folder / "generated_world_seed_1")
    second = comparison_markdown("generated_world_seed_1_claims", folder=folder)
    kept = [row for row in claims_table(found).splitlines() if not row.endswith("| not run |")]
    assert second.splitlines() == kept
    assert len(kept) == 2 + 5


def test_without_results_there_is_no_table_and_no_failure(tmp_path):
    for name in COMPARISONS:
        assert comparison_markdown(name, folder=tmp_path) == ""
    page = "<!-- figures: generated_world -->\n<!-- end -->\n"
    assert rewritten(page, lambda name: comparison_markdown(name, folder=tmp_path), page="page.md") == page


def test_damaged_results_are_named(folder):
    (folder / "generated_world" / "crops-transformer-0.json").write_text("{}")
    with pytest.raises(FiguresError, match=r"crops-transformer-0\.json: format must be"):
        comparison_markdown("generated_world", folder=folder)


def test_the_names_are_among_those_that_a_page_can_hold():
    for name in COMPARISONS:
        assert markdown(name) == comparison_markdown(name)
