"""The table of an outcome on a terminal, and the commands that come next, which their programs take."""

import dataclasses
import re

import pytest

from crops_jax.program.arguments import call_as
from crops_jax.program.crops import STAGES
from crops_jax.program.outcome import MAX_LINES, next_commands, outcome_table
from tests.docs.programs import calls, flags, refusal, run_options

PROGRAMS = [module for modules in STAGES.values() for module in modules]


@dataclasses.dataclass(frozen=True)
class Arguments:
    logs: str = "my logs"
    output: str = "out"


def test_names_and_values_stand_in_columns_and_empty_ones_are_left_out():
    outcome = {"labels": "a/b", "rows": 1234567, "skipped": {}, "note": None, "rate": 0.123456, "whole": True}
    assert outcome_table(outcome, width=80) == [
        "labels  a/b",
        "rows    1,234,567",
        "rate    0.1235",
        "whole   yes",
    ]


def test_a_dictionary_is_one_line_where_it_fits_and_else_one_for_each_value():
    outcome = {"by_level": {"1": 20, "4": 30}, "metrics": {"bm25": {"recall@100": 0.5, "share": None}}, "seeds": [1, 2]}
    assert outcome_table(outcome, width=80) == [
        "by level       1 20, 4 30",
        "metrics: bm25  recall@100 0.5",
        "seeds          1, 2",
    ]
    assert outcome_table({"by_level": {"1": 20, "4": 30}}, width=10) == ["by level: 1  20", "by level: 4  30"]
    assert outcome_table({"queries": [{"query": "a"}, {"query": "b"}]}, width=80) == ["queries  2 entries"]


def test_reasons_name_columns_as_they_are():
    table = outcome_table({"dropped": {"feed_views": {"user_id: an empty id": 3}}}, width=80)
    assert table == ["dropped: feed views  user_id: an empty id 3"]


def test_a_long_outcome_is_cut_where_it_is_longest():
    outcome = {"run": "r", "curve": {str(n): {"x": [[n]]} for n in range(30)}, "best": 0.5}
    table = outcome_table(outcome, width=80)
    assert table == ["run    r", "curve  30 figures; --json prints them", "best   0.5"]
    many = outcome_table({f"name_{n}": n for n in range(50)}, width=80)
    assert len(many) == MAX_LINES
    assert many[-1] == "further  31 figures; --json prints them"


def test_many_figures_of_several_systems_are_cut_to_the_first_of_each():
    figures = {f"Recall@{k}": 0.123 for k in range(12)}
    table = outcome_table({"report": "r.html", "metrics": {"bm25": figures, "crops": figures}}, width=60)
    assert table == [
        "report          r.html",
        "metrics: bm25   Recall@0 0.123, Recall@1 0.123, ...",
        "metrics: crops  Recall@0 0.123, Recall@1 0.123, ...",
    ]


def test_a_path_is_never_cut_and_control_characters_are_not_executed():
    assert outcome_table({"output": "x" * 200 + "\x1b[2J"}, width=80) == [f"output  {'x' * 200} [2J"]


def test_the_next_commands_name_what_was_written():
    found = next_commands(["data.mine --logs {output} --from {test_from}"], Arguments("l", "a b"), {"test_from": "x"})
    assert found == ["", "next:", "    python -m data.mine --logs 'a b' --from x"]
    assert next_commands([], Arguments(), {}) == []


def test_the_next_commands_are_called_as_this_one_was():
    call_as("crops hold-out")
    try:
        assert next_commands(["data.write_records --logs {logs}"], Arguments(), {})[-1] == (
            "    crops write-records --logs 'my logs'"
        )
    finally:
        call_as("")


@pytest.mark.parametrize("module", PROGRAMS)
def test_every_next_command_is_one_that_its_program_takes(module):
    wrong = []
    for template in run_options(module).get("then", ()):
        words = re.sub(r"\{\w+\}", "path", template).replace("CONFIG", "tiny_cpu").split()
        (call,) = calls(["python", "-m", *words])
        wrong += [refusal(call), *sorted(set(call.flags) - flags(call.module))]
    assert [one for one in wrong if one] == []


def test_the_programs_that_compute_with_jax_have_the_flag():
    having = {module for module in PROGRAMS if "--device" in flags(module)}
    assert having >= {"launch.train", "launch.train_discriminator", "launch.embed", "launch.evaluate", "launch.search"}
    assert having >= {"launch.pipeline", "launch.compare", "launch.mine_negatives", "data.mine", "data.hold_out"}
    assert not having & {"launch.report", "launch.status", "data.report", "data.simulate", "data.inspect"}
    assert all("--json" in flags(module) for module in PROGRAMS)
