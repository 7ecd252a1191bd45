"""The times of a step in several processes."""

from crops_jax.devices.processes import Processes
from crops_jax.runs.step_times import gathered_times, newest_times
from tests.crops_jax.devices.test_processes import Service


def spent(seconds, wait):
    return {"seconds": seconds, "input_wait_seconds": wait}


def test_one_process_has_its_own_times():
    fields = gathered_times(Processes(0, 1), spent(5.0, 1.0), steps=10)
    assert fields == {
        **{f"step_seconds_{name}": 0.5 for name in ("min", "median", "max")},
        **{f"input_wait_seconds_{name}": 0.1 for name in ("min", "median", "max")},
        "step_seconds_process": 0,
        "input_wait_seconds_process": 0,
    }


def test_the_first_of_several_knows_the_times_that_the_others_left():
    service = Service(4)
    cluster = [Processes(index, 4, service) for index in range(4)]
    for index, wait in ((3, 0.2), (1, 0.1), (2, 4.0)):
        gathered_times(cluster[index], spent(5.0 + index, wait), steps=10)
    fields = gathered_times(cluster[0], spent(5.0, 0.0), steps=10)
    assert [fields[f"input_wait_seconds_{name}"] for name in ("min", "median", "max", "process")] == [0, 0.015, 0.4, 2]
    assert [fields[f"step_seconds_{name}"] for name in ("min", "median", "max", "process")] == [0.5, 0.65, 0.8, 3]
    # A line that a process writes before the others does not wait for them.
    assert gathered_times(cluster[0], spent(50.0, 0.0), steps=10)["step_seconds_process"] == 0


def test_the_newest_times_are_those_of_the_last_line_that_has_some():
    fields = gathered_times(Processes(0, 1), spent(5.0, 1.0), steps=10)
    old = dict.fromkeys(fields, 9)
    assert newest_times([old, fields, {"event": "end"}]) == fields
    assert newest_times([]) == dict.fromkeys(fields)
