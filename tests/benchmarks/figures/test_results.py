"""Stored results: every committed one is whole and shown somewhere, and a broken one is named."""

import dataclasses
import json

import pytest

from benchmarks.figures.registry import FIGURES, markdown
from benchmarks.figures.results import FOLDER, FiguresError, read_result, write_result

NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_result_names_its_command_machine_date_commit_and_packages(name):
    result = read_result(name)
    assert len(result.commit.partition("+")[0]) == 40
    assert result.machine.processor
    assert result.machine.cores > 0
    assert result.packages["jax"]
    assert any(name in figure.results for figure in FIGURES.values())


@pytest.mark.parametrize("name", FIGURES)
def test_every_table_is_made_from_the_committed_results(name):
    lines = markdown(name).splitlines()
    assert lines[0].startswith("| ")
    assert set(lines[1]) == set("| -")


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = read_result("demo")
    write_result("again", result, folder=tmp_path)
    assert read_result("again", folder=tmp_path) == result
    with pytest.raises(FiguresError, match="'a/b' is no name"):
        write_result("a/b", result, folder=tmp_path)
    with pytest.raises(FiguresError, match="field title is empty"):
        dataclasses.replace(result, title="")


def test_a_missing_or_broken_result_is_named(tmp_path):
    with pytest.raises(FiguresError, match=r"demo\.json is missing; store it with"):
        read_result("demo", folder=tmp_path)
    (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(FiguresError, match=r"demo\.json is not a stored result"):
        read_result("demo", folder=tmp_path)
    fields = json.loads((FOLDER / "demo.json").read_text())
    (tmp_path / "demo.json").write_text(json.dumps({**fields, "values": {"systems": {}}}))
    with pytest.raises(FiguresError, match="figures demo_differences: demo lack what the table shows"):
        markdown("demo_differences", folder=tmp_path)
    with pytest.raises(FiguresError, match="there are no figures 'nothing'"):
        markdown("nothing")
