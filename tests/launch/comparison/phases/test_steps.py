"""The commands of a phase, each of which a program accepts."""

from pathlib import Path

import pytest

from crops_jax import program
from data.write_records import write_records
from launch.comparison.phases.schedules import ANCE, BM25_NEGATIVES, SIMANS, TRISAMPLER
from launch.comparison.phases.steps import MiningInputs, dev_fraction, lexical_steps, refresh_steps
from launch.embed import embed
from launch.mine_negatives import mine_negatives

PROGRAMS = {"launch.embed": embed, "launch.mine_negatives": mine_negatives, "data.write_records": write_records}
INPUTS = MiningInputs(
    split=Path("split"),
    labels=Path("clicks"),
    tokenizer=Path("tokenizer"),
    lengths=("--max-tokens", "32", "--max-query-tokens", "16"),
    records_flags=("--dev-fraction", "0.2"),
    temperature=0.05,
)


def commands(steps) -> list[str]:
    return [" ".join(step.command[2:]) for step in steps]


def test_a_refresh_by_hand():
    (random,) = {one.negatives for one in ANCE[1:] if one.negatives}
    assert commands(refresh_steps(INPUTS, random, Path("ance_1"), run=Path("before"), seed=7)) == [
        "launch.embed --run before --texts clicks --tower query --output ance_1/queries",
        "launch.embed --run before --texts split --tower document --output ance_1/documents",
        "launch.mine_negatives --labels clicks --query-embeddings ance_1/queries --document-embeddings "
        "ance_1/documents --top 200 --per-query 20 --sampling random --temperature 0.05 --level 1 "
        "--replace-negatives --dev-fraction 0.2 --seed 7 --output ance_1/labels",
        "data.write_records --labels ance_1/labels --logs split --tokenizer tokenizer --max-tokens 32 "
        "--max-query-tokens 16 --documents-per-query 24 --dev-fraction 0.2 --output ance_1/records",
    ]


def test_bm25_ranks_without_a_run():
    assert commands(lexical_steps(INPUTS, BM25_NEGATIVES, Path("bm25"))) == [
        "launch.mine_negatives --labels clicks --ranked-by bm25 --logs split --top 100 --per-query 20 --sampling "
        "random --level 1 --replace-negatives --dev-fraction 0.2 --seed 0 --output bm25/labels",
        "data.write_records --labels bm25/labels --logs split --tokenizer tokenizer --max-tokens 32 "
        "--max-query-tokens 16 --documents-per-query 24 --dev-fraction 0.2 --output bm25/records",
    ]


@pytest.mark.parametrize("phases", [ANCE, SIMANS, TRISAMPLER], ids=lambda phases: phases[-1].name)
def test_every_step_is_a_command_line_of_its_program(phases):
    negatives = phases[-1].negatives
    steps = [*refresh_steps(INPUTS, negatives, Path("f"), run=Path("r"), seed=1)]
    for step in [*steps, *lexical_steps(INPUTS, BM25_NEGATIVES, Path("f"))]:
        parsed = program.parse(PROGRAMS[step.module], list(step.arguments))
        assert parsed.output == str(step.output)
        if step.module == "launch.mine_negatives":
            assert (parsed.dev_fraction, parsed.replace_negatives, parsed.level) == (0.2, True, 1)


@pytest.mark.parametrize(
    ("flags", "share"),
    [
        ((), 0.05),
        (("--dev-fraction", "0.1"), 0.1),
        (("--num-shards", "2", "--dev-fraction=0.3"), 0.3),
        (("--dev_fraction", "0", "--seed", "1"), 0.0),
    ],
)
def test_the_share_of_dev_queries_is_that_of_the_records(flags, share):
    assert dev_fraction(flags) == share
    parsed = program.parse(write_records, ["--labels", "l", "--logs", "s", "--output", "o", *flags])
    assert parsed.dev_fraction == share
