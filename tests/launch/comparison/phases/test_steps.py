"""The commands of mined negatives and frozen documents, each of which a program accepts."""

from pathlib import Path

import pytest

from crops_jax import program
from data.write_records import write_records
from launch.comparison.phases.steps import MiningInputs, dev_fraction, frozen_step, lexical_steps
from launch.embed import embed
from launch.mine_negatives import mine_negatives

PROGRAMS = {"launch.embed": embed, "launch.mine_negatives": mine_negatives, "data.write_records": write_records}
INPUTS = MiningInputs(
    split=Path("split"),
    labels=Path("clicks"),
    tokenizer=Path("tokenizer"),
    lengths=("--max-tokens", "32", "--max-query-tokens", "16"),
    records_flags=("--dev-fraction", "0.2"),
)
STEPS = [*lexical_steps(INPUTS, Path("bm25")), frozen_step(Path("split"), Path("adore"), run=Path("before"))]


def test_the_commands_by_hand():
    assert [" ".join(step.command[2:]) for step in STEPS] == [
        "launch.mine_negatives --labels clicks --ranked-by bm25 --logs split --top 100 --per-query 20 --sampling "
        "random --level 1 --replace-negatives --dev-fraction 0.2 --seed 0 --output bm25/labels",
        "data.write_records --labels bm25/labels --logs split --tokenizer tokenizer --max-tokens 32 "
        "--max-query-tokens 16 --documents-per-query 24 --all-documents --dev-fraction 0.2 --output bm25/records",
        "launch.embed --run before --texts split --tower document --output adore/documents",
    ]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_is_a_command_line_of_its_program(step):
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
