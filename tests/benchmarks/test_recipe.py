"""The recipe of the comparison is chosen by the rules that benchmarks.recipe states, and by nothing else."""

import dataclasses

from benchmarks.recipe import CANDIDATES, Candidate, choice, config_of
from launch.comparison.arguments import CompareArguments, budget_of
from launch.comparison.configurations import base_configs

_BY_NAME = {one.name: one for one in CANDIDATES}


def _found(**recalls: float) -> dict[Candidate, float]:
    return {one: recalls.get(one.name.replace("-", "_").replace(".", "_"), 0.2) for one in CANDIDATES}


def test_the_best_candidate_of_1000_steps_is_chosen_and_the_first_of_equal_ones():
    best = choice(_found(fs_lr_2_0_3_anchors_1000=0.25, fs_lr_5_1_anchors_1000=0.25, fs_lr_3_1_anchors_2000=0.205))
    assert best["chosen"] == dataclasses.asdict(_BY_NAME["fs_lr-2-0.3-anchors-1000"])
    assert choice(_found())["chosen"] == dataclasses.asdict(CANDIDATES[0])


def test_every_system_takes_2000_steps_if_one_baseline_gains_more_than_a_hundredth():
    assert choice(_found(fs_lr_3_1_anchors_2000=0.21))["steps"] == 1000
    assert choice(_found(nce_1_1_anchors_2000=0.2101))["steps"] == 2000


def test_candidates_differ_in_what_they_name_and_have_at_most_the_tokens_of_the_first():
    budget = budget_of(CompareArguments(output="TABLE"))
    base = base_configs(budget)["transformer"]
    configs = [config_of(one, budget, base) for one in CANDIDATES]
    assert len(set(map(str, configs))) == len(CANDIDATES) == len(_BY_NAME)

    def tokens(config) -> int:
        documents = config.data.documents_per_query * config.encoder.max_document_tokens
        return config.data.queries_per_batch * (config.encoder.max_query_tokens + documents)

    assert max(map(tokens, configs)) == tokens(configs[0])
    assert {config.optimizer.learning_rate for config in configs} == {base.optimizer.learning_rate / 2}
