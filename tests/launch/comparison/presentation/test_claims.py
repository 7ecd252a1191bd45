"""The verdicts on the claims of the paper, from differences that are made by hand."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from launch.comparison.measures import HIDDEN
from launch.comparison.presentation.claims import (
    CLAIMS,
    FEWEST_SEEDS,
    HELD,
    NOT_RUN,
    NOT_SHOWN,
    NOT_TESTABLE,
    REFUTED,
    TOO_FEW_SEEDS,
    Claim,
    claimed_pairs,
    claims_csv,
    judge,
    verdict_of,
)
from launch.comparison.results.statistics import Difference, Estimate
from launch.comparison.results.table import RATES_DIFFER, Comparison, Pair, Trained, compare_results
from launch.comparison.systems import SYSTEMS
from tests.launch.comparison.results.made_up import made_up_result

CT, QR = "ct_recall@100", "qr_recall@100"
WIDER = 0.002
"""How much each end of the interval that all differences share lies beyond that of Holm's correction."""


def difference(low: float, high: float, *, verdict: str = "") -> Difference:
    """Returns a difference whose interval is the corrected one; it decides the verdict unless one is given."""
    middle = (low + high) / 2
    estimate = Estimate(value=middle, low=low, high=high, queries=500, seeds=3, seed_spread=0.01)
    shown = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    ends = {"low_holm": low, "high_holm": high, "low_all": low - WIDER, "high_all": high + WIDER}
    return Difference(estimate=estimate, p=0.01, p_holm=0.02, **ends, verdict=verdict or shown)


def comparison(further: dict[Pair, Difference], *, seeds: int = 3, **to_reference: Difference) -> Comparison:
    """Returns a comparison with these differences; those to the reference are of CT and of transformer towers."""
    results = [
        made_up_result(system, "transformer", seed, {}) for system in ("crops", "fs_lr") for seed in range(seeds)
    ]
    return Comparison(
        trained=[
            Trained(system=system, architecture="transformer", results=[one for one in results if one.system == system])
            for system in ("crops", "fs_lr")
        ],
        metrics=[CT, QR],
        cells={},
        means={},
        reference="crops",
        differences={(system, "transformer", CT): found for system, found in to_reference.items()},
        further=further,
    )


def pair(metric: str, system: str = "crops", other: str = "fs_lr") -> Pair:
    return Pair(system, "transformer", other, "transformer", metric)


CLAIM = Claim(text="CroPS is better", better="crops", worse=("fs_lr",))


@pytest.mark.parametrize(
    ("ct", "qr", "verdict"),
    [
        (difference(0.01, 0.03), difference(0.001, 0.01), HELD),
        (difference(0.01, 0.03), difference(-0.001, 0.01), NOT_SHOWN),
        (difference(0.01, 0.03), difference(-0.02, -0.01), REFUTED),
        (difference(-0.01, 0.03), difference(-0.02, -0.01), REFUTED),
        (difference(-0.01, 0.03), difference(-0.02, 0.01), NOT_SHOWN),
        (difference(0.01, 0.03), None, NOT_SHOWN),
        (difference(-0.03, -0.01), None, REFUTED),
        (difference(0.01, 0.03), difference(0.01, 0.03, verdict="too few queries"), NOT_SHOWN),
        (difference(0.01, 0.03), difference(0.01, 0.03, verdict="no difference shown"), NOT_SHOWN),
        (None, None, NOT_RUN),
    ],
)
def test_a_claim_is_held_by_all_of_its_parts_and_refuted_by_one(ct, qr, verdict):
    found = {pair(CT): ct, pair(QR): qr}
    judged = judge(comparison({one: value for one, value in found.items() if value is not None}), [CLAIM])
    assert [one.verdict for one in judged] == [verdict]
    assert [part.pair.metric for part in judged[0].parts] == [CT, QR]


def test_a_difference_that_is_known_the_other_way_round_is_turned():
    claim = dataclasses.replace(CLAIM, metrics=(CT,))
    (judged,) = judge(comparison({}, fs_lr=difference(-0.03, -0.01)), [claim])
    assert judged.verdict == HELD
    found = judged.parts[0].found
    assert found is not None
    assert (found.low_holm, found.high_holm, found.estimate.value) == pytest.approx((0.01, 0.03, 0.02))
    (judged,) = judge(comparison({pair(CT, "fs_lr", "crops"): difference(0.01, 0.03)}), [claim])
    assert judged.verdict == REFUTED


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.005, 0.02, HELD),
        (0.001, 0.02, HELD),
        (-0.015, 0.02, NOT_SHOWN),
        (-0.009, 0.02, NOT_SHOWN),
        (-0.005, -0.001, HELD),
        (-0.03, -0.011, NOT_SHOWN),
        (-0.03, -0.02, REFUTED),
    ],
)
def test_a_system_is_not_worse_if_the_interval_lies_above_the_margin(low, high, verdict):
    """The interval that all differences share decides. A system can be worse by less than the margin."""
    assert verdict_of(difference(low, high), margin=0.01) == verdict
    few = difference(low, high, verdict="too few queries")
    assert verdict_of(few, margin=0.01) == NOT_SHOWN


def cost_comparison(step: float, step_of_infonce: float, **figures: float) -> Comparison:
    values = {CT: np.linspace(0, 1, 30).tolist()}
    results = [
        made_up_result("crops", "transformer", 0, values, figures={"step_seconds": step, **figures}),
        made_up_result("infonce", "transformer", 0, values, figures={"step_seconds": step_of_infonce}),
    ]
    return compare_results(results, reference="crops", samples=400)


@pytest.mark.parametrize(
    ("positives", "verdict"), [(1.0, NOT_TESTABLE), (1.25, NOT_TESTABLE), (1.5, NOT_SHOWN), (3.0, NOT_SHOWN)]
)
@pytest.mark.parametrize("step", [0.1, 1.0, 3.0])
def test_infonce_takes_a_step_for_each_positive_of_a_query(step, positives, verdict):
    """With 1.5 positives of a query, H-InfoNCE takes at least 1 / 1.5 = 0.67 of the time, which may be about half."""
    claim = Claim(text="Half the time", costs=("crops", "infonce"))
    levels = {"anchors_per_query_level_4": positives - 0.5, "anchors_per_query_level_5": 0.5}
    (judged,) = judge(cost_comparison(step, 1.0, **levels), [claim])
    assert judged.verdict == verdict
    assert f"at least {1 / positives:.2f} of the time" in judged.evidence
    assert f"took {step:.3f} s with H-InfoNCE and 1.000 s with InfoNCE" in judged.evidence
    (judged,) = judge(cost_comparison(step, 1.0), [claim])
    assert judged.verdict == NOT_SHOWN
    (judged,) = judge(dataclasses.replace(comparison({}), trained=[]), [claim])
    assert judged.verdict == NOT_RUN


@pytest.mark.parametrize(("seeds", "verdict"), [(1, TOO_FEW_SEEDS), (2, TOO_FEW_SEEDS), (3, HELD)])
def test_no_claim_is_decided_by_fewer_than_three_runs(seeds, verdict):
    """The difference between two runs of one system can exclude 0, because the interval is over queries alone."""
    found = {pair(CT): difference(0.01, 0.03), pair(QR): difference(0.01, 0.03)}
    (judged,) = judge(comparison(found, seeds=seeds), [CLAIM])
    assert judged.verdict == verdict
    against_bm25 = dataclasses.replace(CLAIM, worse=("bm25",), metrics=(CT,))
    of_bm25 = Pair("crops", "transformer", "bm25", "none", CT)
    (judged,) = judge(comparison({of_bm25: difference(0.01, 0.03)}, seeds=seeds), [against_bm25])
    assert judged.verdict == verdict


def test_no_claim_is_decided_by_systems_with_different_learning_rates():
    found = {pair(CT): difference(0.01, 0.03), pair(QR): difference(-0.03, -0.01)}
    made = comparison(found)
    for rates, verdict in (((1.0, 1.0), REFUTED), ((1.0, 0.5), RATES_DIFFER)):
        trained = [
            dataclasses.replace(
                one,
                results=[dataclasses.replace(run, figures={"learning_rate_factor": rate}) for run in one.results],
            )
            for one, rate in zip(made.trained, rates, strict=True)
        ]
        (judged,) = judge(dataclasses.replace(made, trained=trained), [CLAIM])
        assert judged.verdict == verdict


def test_the_claims_are_those_of_the_paper():
    compared = {(claim.better, other, claim.architecture) for claim in CLAIMS for other in claim.worse}
    baselines = {"bm25", "nce", "dpr", "ance", "adore_star", "trisampler", "fs_lr"}
    ablations = {"crops_query_system", "crops_binary", "crops_query_level_at_4", "infonce", "softmax_cross_entropy"}
    assert compared == {
        *(("crops", other, "transformer") for other in baselines | ablations),
        *((system, "nce", "transformer") for system in ("fs_lr", "dpr", "ance", "adore_star", "trisampler")),
        ("crops_query_level", "fs_lr", "transformer"),
        ("crops_query_system", "crops_query_level", "transformer"),
        ("crops", "fs_lr", "hashed"),
    }
    metrics = {(one.system, one.other, one.metric) for one in claimed_pairs()}
    assert {("crops", "fs_lr", metric) for metric in (CT, QR, "ndcg@4", HIDDEN)} <= metrics
    assert Pair("crops", "transformer", "bm25", "none", CT) in claimed_pairs()
    assert [one.verdict for one in judge(comparison({}))].count(NOT_TESTABLE) == 1
    assert {one.verdict for one in judge(comparison({}))} == {NOT_RUN, NOT_TESTABLE}


def test_claims_are_decided_in_the_family_of_the_whole_table():
    """Differences to the reference are computed once; a claim about them adds none to the family."""
    generator = np.random.default_rng(0)
    base = generator.random(200) / 2
    gains = {"fs_lr": 0.0, "crops_query_level": 0.1, "crops": 0.2}
    results = [
        made_up_result(system, "transformer", seed, {CT: (base + gain).tolist(), QR: (base + gain).tolist()})
        for system, gain in gains.items()
        for seed in range(3)
    ]
    found = compare_results(results, reference="crops", samples=2000, pairs=claimed_pairs())
    assert set(found.differences) == {(s, "transformer", m) for s in ("fs_lr", "crops_query_level") for m in (CT, QR)}
    assert set(found.further) == {pair(CT, "crops_query_level"), pair(QR, "crops_query_level")}
    assert found.family == 6
    verdicts = {one.claim.text: one.verdict for one in judge(found)}
    assert verdicts["Positives of the query level add to the search log"] == HELD
    assert verdicts["CroPS retrieves more than FS-LR, which learns from the search log alone"] == HELD
    assert verdicts["Positives of the system level add to the query level"] == NOT_RUN


def test_the_file_has_a_row_for_each_comparison():
    found = judge(comparison({pair(CT): difference(0.01, 0.03)}), [CLAIM, CLAIMS[-1]])
    rows = list(csv.DictReader(io.StringIO(claims_csv(found))))
    assert [(row["verdict"], row["metric"], row["part_verdict"]) for row in rows] == [
        (NOT_SHOWN, CT, HELD),
        (NOT_SHOWN, QR, NOT_RUN),
        (NOT_TESTABLE, "", ""),
    ]
    assert (rows[0]["difference"], rows[0]["low_holm"], rows[0]["queries"]) == ("0.02", "0.01", "500")
    assert "traffic" in rows[2]["evidence"]


def test_the_default_number_of_seeds_decides_every_claim():
    claimed = {name for pair in claimed_pairs() for name in (pair.system, pair.other)}
    assert len(claimed) > 10
    assert [name for name in claimed if SYSTEMS[name].seeds < FEWEST_SEEDS] == []
