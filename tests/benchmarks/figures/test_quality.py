"""Tables of quality from results made by hand: the headline figures follow the corpus, and shared runs are told."""

import dataclasses

import pytest

from benchmarks.figures.quality import differences, headline_systems, recipes, training, world
from benchmarks.figures.results import read_result


def figure(value, queries=9):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "queries": queries}


def row(label, against, verdict):
    named = {"system": "cross_perspective", "against": against, "label": label, "verdict": verdict}
    return {**named, "value": 0.25, "low": 0.2, "high": 0.3, "queries": 9}


def tables(base):
    return {
        "ct": {"recall@10": figure(base), "recall@100": figure(base + 0.1)},
        "qr": {"recall@10": figure(base + 0.2), "recall@100": figure(base + 0.3)},
        "judgements": {"recall@100": figure(base + 0.4), "ndcg@4": figure(base + 0.5)},
    }


VALUES = {
    "documents": 3_500,
    "systems": {"bm25": tables(0.1), "cross_perspective": tables(0.2)},
    "unseen_pairs": {"bm25": tables(0.3), "cross_perspective": tables(0.4)},
    "differences": [row("Judged Recall@100", "bm25", "better"), row("CT Recall@10", "bm25", "worse")],
    "training": {"search_log": {"steps": 1200, "input_wait": 0.002}},
    "shared_runs": {"cross_perspective": "search_log"},
}


@pytest.fixture
def demo():
    return dataclasses.replace(read_result("demo"), values=VALUES)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_columns_are_the_headline_figures_and_unseen_pairs_come_from_their_part(demo):
    lines = headline_systems(demo).splitlines()
    assert cells(lines[0]) == [
        "system",
        "Judged Recall@100",
        "NDCG@4",
        "CT Recall@10, unseen pairs",
        "CT Recall@10",
        "QR Recall@10",
    ]
    assert [cell.split(" ")[0] for cell in cells(lines[2])] == ["BM25", "0.500", "0.600", "0.300", "0.100", "0.300"]


def test_a_large_corpus_has_recall_at_100(demo):
    large = dataclasses.replace(demo, values={**VALUES, "documents": 20_000})
    lines = headline_systems(large).splitlines()
    assert cells(lines[0])[3:] == ["CT Recall@100, unseen pairs", "CT Recall@100", "QR Recall@100"]
    assert cells(lines[2])[4].startswith("0.200 ")


def test_all_figures_are_shown_over_unseen_pairs_once(demo):
    lines = headline_systems(demo, pairs="unseen").splitlines()
    assert cells(lines[0]) == [
        "system",
        "Judged Recall@100, unseen pairs",
        "NDCG@4, unseen pairs",
        "CT Recall@10, unseen pairs",
        "QR Recall@10, unseen pairs",
    ]
    assert [cell.split(" ")[0] for cell in cells(lines[2])] == ["BM25", "0.700", "0.800", "0.300", "0.500"]


def test_each_difference_has_its_interval_and_verdict(demo):
    assert [cells(line)[2:] for line in differences(demo).splitlines()[2:]] == [
        ["Judged Recall@100", "+0.250 (+0.200 to +0.300)", "9", "better"],
        ["CT Recall@10", "+0.250 (+0.200 to +0.300)", "9", "worse"],
    ]


def test_an_arm_that_shares_a_run_is_told_in_the_table_of_training(demo):
    assert [cells(line) for line in training(demo).splitlines()[2:]] == [
        ["search_log", "1,200", "0.2 %", "yes"],
        ["cross_perspective", "the run of search_log, as the labels are equal", "-", "-"],
    ]


def test_the_chosen_recipe_is_marked(demo):
    first, second = (
        {
            "system": "fs_lr",
            "documents_per_query": documents,
            "lower_level_weight": weight,
            "normalization": "anchors",
            "steps": 1000,
        }
        for documents, weight in ((3, 1.0), (2, 0.3))
    )
    candidates = [first | {"dev_recall_at_10": 0.25}, second | {"dev_recall_at_10": 0.26}]
    outcome = {"candidates": candidates, "chosen": second, "steps": 1000}
    lines = recipes(dataclasses.replace(demo, values={"outcomes": [outcome]})).splitlines()
    assert [cells(line) for line in lines[2:]] == [
        ["`fs_lr`", "3", "1.0", "anchors", "1,000", "0.2500", ""],
        ["`fs_lr`", "2", "0.3", "anchors", "1,000", "0.2600", "chosen"],
    ]


def test_a_world_has_its_targets_and_its_room(demo):
    def target(measured, within):
        return {"measured": measured, "value": 0.5, "tolerance": 0.1, "within": within}

    figures = {name: {"ct_recall@100": 0.25, "qr_recall@100": 0.75} for name in ("random", "bm25", "oracle")}
    outcome = {
        "targets": {"bm25_ndcg@4": target(0.5, True), "clicks": target(0.7, False), "nce_ndcg@4": target(None, None)},
        "room": {**figures, "present_engine": {"ct_recall@100": 1.0, "qr_recall@100": 0.5}, "channels": {}},
    }
    lines = world(dataclasses.replace(demo, values={"outcomes": [outcome]})).splitlines()
    assert cells(lines[2]) == ["`clicks`", "0.50 ± 0.10", "0.700", "no"]
    assert lines[3] == ""
    assert cells(lines[6]) == ["`random`", "0.250", "0.750"]
    assert cells(lines[9]) == ["`present_engine`", "1.000", "0.500"]
