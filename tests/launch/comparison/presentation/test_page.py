"""The page of a comparison: its figures, claims, reasons and example, and the picture beside it."""

import dataclasses
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from crops_jax.errors import InputError
from launch.comparison.evidence.example import Example
from launch.comparison.measures import HIDDEN
from launch.comparison.presentation.claims import CLAIMS_FILE, claimed_pairs
from launch.comparison.presentation.page import PAGE, PICTURE, write_comparison_page
from launch.comparison.presentation.paper_figures import beside_the_paper
from launch.comparison.presentation.reasons import reasons_of
from launch.comparison.results.setting import Setting, read_setting, write_setting
from launch.comparison.results.table import compare_results
from tests.launch.comparison.results.made_up import made_up_result

CT = "ct_recall@100"
BASE = np.linspace(0.1, 0.8, 24)
GAIN = {"queries": 2, "positives": 8, "documents": 8, "only_here": 2, "not_clicked_share": 0.25}
SETTING = Setting(
    command="python -m launch.compare --output TABLE",
    arguments={"logs": "LOGS"},
    inputs={"split": "a"},
    shared_seconds=1800.0,
    labels={
        "perspectives": {"query_level": GAIN, "search_log": GAIN | {"not_clicked_share": 0.0}},
        "precision_by_truth": {"query_level": {"pairs": 8, "relevant": 6, "value": 0.75}},
    },
)
EXAMPLE = Example(
    inputs="a",
    test="hidden_relevant",
    query="red <shoes>",
    relevant=4,
    recall={"crops": 0.75, "fs_lr": 0.25},
    first={"crops": [{"title": "Scarlet boots", "relevant": True}], "fs_lr": [{"title": "Lamp", "relevant": False}]},
    gained=[{"title": "Scarlet boots", "rank": 1, "other_rank": None}],
    gained_in_all=1,
)
ANCHORS = {f"anchors_per_query_level_{level}": 0.5 for level in range(1, 6)}


def cells(system: str, architecture: str, gain: float, *, seeds: int = 3, **figures: float):
    values = {CT: (BASE + gain).tolist(), HIDDEN: (BASE - gain).tolist()}
    return [made_up_result(system, architecture, seed, values, figures=figures) for seed in range(seeds)]


@pytest.fixture(scope="module")
def comparison():
    results = [
        *cells("bm25", "none", -0.1, seeds=1),
        *cells("nce", "hashed", -0.05),
        *cells("crops", "hashed", 0.0),
        *cells("fs_lr", "transformer", 0.02, step_seconds=1.0, **ANCHORS),
        *cells("crops", "transformer", 0.1, step_seconds=1.0, **ANCHORS),
        *cells("crops_query_level_at_4", "transformer", 0.05, seeds=1),
        *cells("infonce", "transformer", 0.15, step_seconds=3.0),
    ]
    return compare_results(results, reference="crops", samples=2000, pairs=claimed_pairs())


@pytest.fixture
def page(tmp_path, comparison):
    notes = ["Read this first."]
    write_comparison_page(tmp_path, comparison, SETTING, EXAMPLE, manifest={"program": "launch.compare"}, notes=notes)
    return (tmp_path / PAGE).read_text()


def test_the_page_has_the_figures_the_paper_and_the_ablations(page):
    for words in ("Read this first.", "0.550", "0.691", "-0.141", "Ablation of the loss", "178", "worse"):
        assert words in page
    assert page.count("<svg") == 2 * 2
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_page_has_every_claim_with_its_verdict_and_evidence(page, tmp_path):
    assert "H-InfoNCE is better than InfoNCE" in page
    for verdict in ("held", "refuted", "not shown", "too few seeds", "not run", "cannot be tested here"):
        assert f">{verdict}</span>" in page
    claims = (tmp_path / CLAIMS_FILE).read_text()
    assert claims.startswith("claim,verdict,system,other,architecture,metric,difference,low_holm,high_holm,p_holm")
    assert "H-InfoNCE is better than InfoNCE,refuted,crops,infonce,transformer,ct_recall@100,-0.05" in claims


def test_the_page_shows_the_example_with_its_rule(page):
    assert "red &lt;shoes&gt;" in page
    assert "<mark>Scarlet boots</mark>" in page
    assert "the largest gain in Recall@100" in page
    assert "fs_lr does not retrieve it" in page


def test_without_an_example_and_labels_the_page_leaves_them_out(tmp_path, comparison):
    setting = dataclasses.replace(SETTING, labels={})
    write_comparison_page(tmp_path, comparison, setting, None, manifest={}, notes=[])
    assert "whose results widen" not in (tmp_path / PAGE).read_text()
    assert "Relevant by the truth" not in (tmp_path / PAGE).read_text()


def test_the_page_says_how_it_was_measured(page):
    assert "python -m launch.compare --output TABLE" in page
    assert "17 cells took 0.3 hours, and the steps that they share 0.5 hours, on A processor, 2 cores" in page
    assert "jax 1, flax 2, numpy 3" in page


def test_the_picture_has_all_metrics_in_the_order_of_the_first_one(page, tmp_path):
    picture = ElementTree.fromstring((tmp_path / PICTURE).read_text())
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert "CT Recall@100" in texts
    assert "Hidden relevant Recall@100" in texts
    systems = [text for text in texts if text in ("crops", "fs_lr", "bm25")]
    assert systems == ["crops", "fs_lr", "bm25"] * 2
    assert "infonce" not in texts


def test_differences_to_bm25_stand_beside_those_of_the_paper(comparison):
    rows = {row.system: row for row in beside_the_paper(comparison, [CT])}
    crops, bm25 = rows["crops"], rows["bm25"]
    assert (crops.paper, crops.paper_to_bm25) == (0.691, pytest.approx(0.262))
    assert crops.ours_to_bm25 == pytest.approx(0.2)
    assert crops.ours_to_reference is None
    assert (bm25.ours_to_bm25, bm25.paper_to_reference) == (None, pytest.approx(-0.262))
    assert bm25.ours_to_reference == pytest.approx(-0.2)


def test_the_reasons_are_measurements(comparison):
    found = reasons_of(comparison, SETTING, [CT, HIDDEN])
    assert found.not_beaten == ["Hidden relevant Recall@100"]
    assert [(source.name, source.positives, source.new_share, source.precision) for source in found.sources] == [
        ("search_log", 8, 0.25, None),
        ("query_level", 8, 0.25, 0.75),
    ]
    assert found.low_anchors == {"fs_lr": pytest.approx(0.6), "crops": pytest.approx(0.6)}
    assert found.level_five[CT].estimate.value == pytest.approx(0.05)
    sentences = " ".join(found.sentences)
    assert "query_level 75.0 %" in sentences
    assert "query_level 25.0 % of 8" in sentences
    assert "changes CT Recall@100 by +0.050" in sentences


def test_the_setting_is_read_as_it_was_written_and_keeps_what_was_known(tmp_path):
    write_setting(tmp_path, SETTING)
    assert read_setting(tmp_path) == SETTING
    again: dict[str, Any] = {"labels": {}, "left_out": {"crops_knowledge_level": "no table"}, "shared_seconds": 1.0}
    write_setting(tmp_path, dataclasses.replace(SETTING, **again))
    assert read_setting(tmp_path) == dataclasses.replace(SETTING, left_out=again["left_out"])
    write_setting(tmp_path, dataclasses.replace(SETTING, inputs={"split": "b"}, **again))
    assert read_setting(tmp_path).labels == {}
    (tmp_path / "comparison.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="format must be 2"):
        read_setting(tmp_path)
