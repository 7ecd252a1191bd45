import json

import pytest

from crops_jax.devices import processes
from crops_jax.devices.processes import Processes
from crops_jax.errors import InputError
from crops_jax.runs.log import GOODPUT, METRICS, PARTS, RunLog, Stopwatch, check_log, read_goodput, read_metrics


def test_later_and_torn_lines_are_dropped_on_resume_and_goodput_is_kept(tmp_path):
    log = RunLog(tmp_path, resumed_at=0)
    for step in (1, 2, 3):
        log.metrics({"step": step, "loss": step / 3})
        log.goodput({"step": step, "seconds": 1.0})
    log.close()
    whole = (tmp_path / METRICS).read_text().splitlines(keepends=True)
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    log = RunLog(tmp_path, resumed_at=2)
    assert (tmp_path / METRICS).read_text() == "".join(whole[:2])
    log.metrics({"step": 3, "loss": 1.0})
    log.close()
    assert (tmp_path / METRICS).read_text() == "".join(whole[:2]) + '{"step": 3, "loss": 1.0}\n'
    assert [json.loads(line)["step"] for line in (tmp_path / GOODPUT).read_text().splitlines()] == [1, 2, 3]


def test_of_several_processes_the_first_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_current", Processes(1, 2))
    log = RunLog(tmp_path, resumed_at=0)
    log.metrics({"step": 1, "loss": 0.5})
    log.goodput({"step": 1, "seconds": 1.0})
    log.close()
    assert not list(tmp_path.iterdir())


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    log = RunLog(tmp_path, resumed_at=0)
    log.metrics({"step": 1, "loss": 0.5})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
    log.close()


def test_bytes_that_are_no_text_count_as_torn(tmp_path):
    (tmp_path / METRICS).write_bytes(b'{"step": 1}\n\xff\xfe\n[1]\n{"step": 2}\n')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_a_log_is_checked_line_by_line(tmp_path):
    metrics, goodput = tmp_path / METRICS, tmp_path / GOODPUT
    assert check_log(metrics) == ([], False)
    metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}')
    assert check_log(metrics) == ([{"step": 1}, {"step": 2}], True)
    goodput.write_text('{"seconds": 1.0}\n{"seconds": 2.0}')
    assert check_log(goodput) == ([{"seconds": 1.0}], True)
    assert read_goodput(tmp_path) == [{"seconds": 1.0}]
    for broken, message in (
        ('{"step": 1}\n[1]\n{"step": 3}', r"metrics.jsonl, line 2: not a JSON object \(no object\); remove the line"),
        ('{"step": 1\n{"step": 2}\n', r"metrics.jsonl, line 1: not a JSON object"),
        ('{"step": 1}\n{"stop": 2}\n', r"metrics.jsonl, line 2: no step in it; remove the line"),
    ):
        metrics.write_text(broken)
        with pytest.raises(InputError, match=message):
            check_log(metrics)


def test_the_parts_of_a_stopwatch_add_up():
    watch = Stopwatch()
    with watch.measure("compute"):
        sum(range(10000))
    reading = watch.read()
    parts = sum(reading[f"{part}_seconds"] for part in PARTS) + reading["other_seconds"]
    assert abs(parts - reading["seconds"]) < 1e-3
    assert watch.read()["compute_seconds"] == 0


def test_a_wait_during_which_the_devices_compute_is_no_wait():
    watch = Stopwatch()
    for busy in (True, False):
        with watch.measure("input_wait", computing=lambda busy=busy: busy):
            sum(range(10000))
        reading = watch.read()
        assert (reading["compute_seconds"] > 0, reading["input_wait_seconds"] > 0) == (busy, not busy)
