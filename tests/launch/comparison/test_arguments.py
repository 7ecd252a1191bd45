"""The command line and the arguments that a committed file of results has: without folders of one machine."""

from launch.comparison.arguments import CompareArguments, command_of, without_paths


def test_the_command_names_what_differs_from_the_defaults():
    arguments = CompareArguments(
        output="/home/someone/table",
        results="docs/results/world",
        systems="bm25,crops",
        seeds=3,
        learning_rate_factors=(0.5, 1.0),
        warm_start="catalogue",
        transformer="/home/someone/minilm.py",
        world="--world large --seed 1",
    )
    assert command_of(arguments) == (
        "python -m launch.compare --output TABLE --results RESULTS --seeds 3 --world '--world large --seed 1' "
        "--transformer minilm.py --learning-rate-factors 0.5 1 --warm-start catalogue"
    )
    assert "/home" not in str(without_paths(arguments))


def test_logs_are_named_by_their_flag_alone():
    arguments = CompareArguments(output="table", logs="/data/logs", from_time="2026-01-05", fast=True)
    assert command_of(arguments) == "python -m launch.compare --output TABLE --fast --logs LOGS --from 2026-01-05"
    shared = without_paths(arguments)
    assert (shared["logs"], shared["fast"], shared["steps"]) == ("LOGS", True, 30)
    assert not {"output", "results", "systems", "seeds"} & shared.keys()
    assert without_paths(CompareArguments(output="table"))["logs"] == ""
