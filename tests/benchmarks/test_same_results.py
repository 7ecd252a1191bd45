"""What is masked of the files that two commits make, and how recordings are compared."""

import hashlib
import json

import numpy as np
import orbax.checkpoint as ocp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import same_results

METRICS = '{"step": 1, "loss": 2.5, "examples_per_second": %s, "tokens_per_second": 7.0}\n{"step": 2, "loss": 2.25}\n'
GOODPUT = '{"event": "start", "step": %s, "steps": 9, "seconds": %s, "compute_seconds": 0.1, "goodput": 0.5}\n'
PAGE = (
    '<th scope="row">run</th><td>9 of 9</td><td>%s</td><td>%s</td><td>0.12</td><td>6</td><td class="left">finished</td>'
)
STATE = '{"fingerprint": "%s",\n  "inputs": {},\n  "kind": "mining_state",\n  "state": "%s"}'
STEPS = '{\n  "train": {\n    "output": "%s"\n  },\n  "report": {\n    "output": "%s",\n    "outcome": {}\n  }\n}'


@pytest.mark.parametrize(
    ("name", "content", "same", "other"),
    [
        ("all/run/metrics.jsonl", METRICS % 1.5, METRICS % 800, (METRICS % 1.5).replace("2.25", "2.26")),
        ("all/run/goodput.jsonl", GOODPUT % (0, 1.5), GOODPUT % (0, "3e-05"), GOODPUT % (1, 1.5)),
        ("work/report.html", PAGE % (3.5, 800), PAGE % (3.5, "–"), PAGE % (3.6, 800)),
        (
            "all/run/goodput.jsonl",
            '{"time": "2026-01-01T00:00:00+00:00", "devices": "1 x cpu", "processes": 1, "commit": null}',
            '{"time": "2026-01-02T00:00:00+00:00", "devices": "8 x TPU", "processes": 1, "commit": "ab with changes"}',
            '{"time": "2026-01-01T00:00:00+00:00", "devices": "1 x cpu", "processes": 2, "commit": null}',
        ),
        (
            "all/report.html",
            '<dl class="facts">\n<dt>Trained</dt><dd>today</dd></dl><p>3</p>',
            '<dl class="facts"></dl><p>3</p>',
            '<dl class="facts"></dl><p>4</p>',
        ),
        ("work/steps.json", '{"seconds": 1.5, "rows": 3}', '{"seconds": 20, "rows": 3}', '{"seconds": 1.5, "rows": 4}'),
        (
            "outcomes/mine_day_4.json",
            f'{{"rows": 3, "state": "{"01" * 16}"}}',
            f'{{"rows": 3, "state": "{"ef" * 16}"}}',
            f'{{"rows": 4, "state": "{"01" * 16}"}}',
        ),
        (
            "state/manifest.json",
            STATE % ("ab" * 32, "01" * 16),
            STATE % ("cd" * 32, "ef" * 16),
            STATE % ("ab", "01" * 16),
        ),
        (
            "work/steps.json",
            STEPS % ("ab" * 32, "cd" * 32),
            STEPS % ("ab" * 32, "ef" * 32),
            STEPS % ("ef" * 32, "cd" * 32),
        ),
        (
            "outcomes/train.json",
            '{"steps": 3, "checkpoint_seconds": 0.1}',
            '{"steps": 3, "checkpoint_seconds": 0.02}',
            '{"steps": 4, "checkpoint_seconds": 0.1}',
        ),
        (
            "outcomes/status.json",
            '{"loss": 3.5, "examples_per_second": 10.0, "goodput": 0.1}',
            '{"loss": 3.5, "examples_per_second": null, "goodput": 0.2}',
            '{"loss": 3.6, "examples_per_second": 10.0, "goodput": 0.1}',
        ),
    ],
)
def test_only_what_the_clock_or_chance_decides_is_masked(name, content, same, other):
    masked = same_results.masked(name, content.encode())
    assert same_results.masked(name, same.encode()) == masked
    assert same_results.masked(name, other.encode()) != masked


@pytest.mark.parametrize(
    "name", ["gains.html", "all/labels/manifest.json", "theta/config.json", "outcomes/mine_all.json"]
)
def test_other_files_are_compared_as_they_are(name):
    content = (METRICS % 1.5 + PAGE % (3.5, 800) + f'"state": "{"01" * 16}"').encode()
    assert same_results.masked(name, content) == content


def test_users_of_a_state_are_not_compared_but_their_rows_are():
    def mask(users, queries):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"user": users, "query": queries}), buffer)
        return same_results.masked("state/days/2024-03-04.parquet", buffer.getvalue().to_pybytes())

    assert mask(["a", "b", "b"], ["lamp", "hat", "hat"]) == mask(["d", "c", "d"], ["hat", "lamp", "hat"])
    assert mask(["a", "b", "b"], ["lamp", "hat", "hat"]) != mask(["a", "b", "b"], ["lamp", "lamp", "hat"])


def test_digests_are_of_files_by_path_and_of_the_arrays_of_a_checkpoint(tmp_path):
    def saved(folder, last):
        step = tmp_path / folder / "run" / "checkpoints" / "6"
        tree = {"layers": [{"kernel": np.arange(6.0).reshape(2, 3)}], "bias": np.array([1.0, last], np.float32)}
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(step / "parameters", args=ocp.args.PyTreeSave(tree))
        for name in ("progress/metadata", "commit_success.txt", "../../compilation_cache/jit", "../../config.json"):
            (step / name).resolve().parent.mkdir(exist_ok=True)
            (step / name).write_text("{}")
        return dict(same_results.digests(tmp_path / folder))

    found = saved("one", 2.0)
    arrays = {f"run/checkpoints/6/parameters{place}" for place in ("['bias']", "['layers'][0]['kernel']")}
    assert set(found) == arrays | {"run/checkpoints/6/progress/metadata", "run/config.json"}
    assert found["run/config.json"] == hashlib.sha256(b"{}").hexdigest()
    assert saved("two", 2.0) == found
    other = saved("three", 2.5)
    assert {name for name in found if found[name] != other[name]} == {"run/checkpoints/6/parameters['bias']"}


def test_compare_names_what_differs_and_fails_unless_all_is_equal(tmp_path, capsys):
    def written(name, artefacts, cores=2):
        (tmp_path / name).write_text(json.dumps({"about": {"cores": cores}, "artefacts": artefacts}))
        return str(tmp_path / name)

    before = written("before.json", {"a": "1", "b": "2", "c": "3"})
    assert same_results.main(["compare", before, before]) == 0
    assert capsys.readouterr().out == "3 artefacts are equal, 0 are not\n"
    after = written("after.json", {"a": "1", "b": "0", "d": "4"}, cores=4)
    assert same_results.main(["compare", before, after]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the recordings differ in cores: 2 and 4"
    assert lines[1:] == ["differs: b", "missing: c", "new: d", "1 artefacts are equal, 3 are not"]


def test_each_step_of_the_road_has_a_name_of_its_own_and_a_program():
    steps = [line.split(": ", 1) for line in same_results.ROAD.strip().splitlines()]
    assert len({name for name, _ in steps}) == len(steps)
    assert {command.split()[0].split(".")[0] for _, command in steps} == {"data", "launch"}


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "note").touch()
    with pytest.raises(SystemExit, match="not empty"):
        same_results.record(tmp_path)
