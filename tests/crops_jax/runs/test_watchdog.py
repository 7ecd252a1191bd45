"""A run that hangs ends, names its stage and leaves its stacks; one that is slow or was paused goes on."""

import threading

import pytest

from crops_jax.devices import processes
from crops_jax.devices.processes import Processes
from crops_jax.runs.log import Stopwatch
from crops_jax.runs.watchdog import Watchdog, hang_file
from tests.crops_jax.devices.test_processes import Exit, Service, exit_process

PATIENCE_SECONDS = 60


class Clock:
    """A clock that shows what a test sets."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def watched(tmp_path, *, steps=(), limit=10.0, poll=5.0):
    """A watchdog after steps that took so many seconds, and its stopwatch."""
    watch, clock = Stopwatch(), Clock()
    watchdog = Watchdog(tmp_path, watch, limit_seconds=limit, poll_seconds=poll, now=clock)
    watchdog.step_done()
    for seconds in steps:
        clock.seconds += seconds
        watchdog.step_done()
    watchdog.look(0)
    return watchdog, watch


def test_the_limit_is_that_of_the_configuration_or_twenty_median_steps(tmp_path):
    assert watched(tmp_path)[0].limit() == 10
    assert watched(tmp_path, steps=[0.1, 0.2, 0.1])[0].limit() == 10
    assert watched(tmp_path, steps=[1, 2, 90])[0].limit() == 40


@pytest.mark.parametrize(
    ("part", "limit"), [("input_wait", 10), ("compute", 10), ("compilation", 60), ("evaluation", 60)]
)
def test_parts_of_which_the_whole_counts_as_one_have_more_time(tmp_path, part, limit):
    watchdog, watch = watched(tmp_path)
    with watch.measure(part):
        assert watchdog.limit() == limit
        assert not watchdog.look(5)
        assert not watchdog.look(limit)
        assert watchdog.look(0.1)


def test_any_progress_begins_the_wait_again(tmp_path):
    watchdog, watch = watched(tmp_path)
    assert not watchdog.look(9)
    watchdog.step_done()
    assert not watchdog.look(9)
    assert not watchdog.look(9)
    with watch.measure("compute"):
        assert not watchdog.look(9)
        assert not watchdog.look(9)
    assert not watchdog.look(9)
    assert watchdog.look(11)


def test_a_hang_leaves_the_stacks_of_all_threads_and_ends_with_status_4(tmp_path, monkeypatch, capfd):
    ended, statuses, release = threading.Event(), [], threading.Event()

    def end(status):
        statuses.append(status)
        ended.set()

    def waits_for_a_batch():
        release.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(processes, "_current", Processes(0, 1, exit_process=end))
    hanging = threading.Thread(target=waits_for_a_batch)
    hanging.start()
    watch = Stopwatch()
    with watch.measure("input_wait"):
        watchdog = Watchdog(tmp_path, watch, limit_seconds=0.05).start()
        assert ended.wait(PATIENCE_SECONDS)
    watchdog.close()
    release.set()
    hanging.join()
    assert statuses == [4]
    stacks = hang_file(tmp_path, 0).read_text()
    assert stacks.startswith("process 0 of 1, stage input wait\n")
    assert "in waits_for_a_batch" in stacks
    assert "in the stage input wait; the stacks of all threads are in" in capfd.readouterr().err


def test_without_a_limit_nothing_is_watched(tmp_path):
    before = threading.active_count()
    Watchdog(tmp_path, Stopwatch(), limit_seconds=0).start()
    assert threading.active_count() == before


def test_one_of_several_processes_tells_the_others_before_it_ends(tmp_path, monkeypatch, capfd):
    service = Service(2)
    hung = Processes(1, 2, service, exit_process=exit_process, grace_seconds=0.05)
    monkeypatch.setattr(processes, "_current", hung)
    watchdog, watch = watched(tmp_path, poll=0)
    with watch.measure("input_wait"):
        watchdog.look(0)
        assert watchdog.look(11)
        with pytest.raises(Exit, match="4"):
            watchdog._end_process()
    assert hang_file(tmp_path, 1).exists()
    # What the thread of the other one sees.
    with pytest.raises(Exit, match="4"):
        Processes(0, 2, service, exit_process=exit_process, poll_seconds=0.01)._listen()
    assert "process 1 of 2: no progress for 11 s in the stage input wait" in capfd.readouterr().err


def test_a_process_that_is_not_found_to_hang_leaves_its_stacks_when_another_is(tmp_path, monkeypatch):
    service = Service(2)
    Processes(0, 2, service).publish("hung", "compute")
    monkeypatch.setattr(processes, "_current", Processes(1, 2, service))
    watchdog = Watchdog(tmp_path, Stopwatch(), limit_seconds=1000, poll_seconds=0.01)
    watchdog._follow()  # returns, because the other one ends this process
    assert hang_file(tmp_path, 1).read_text().startswith("process 1 of 2, stage other")
    assert Processes(0, 2, service).published("hung") == {0: "compute", 1: "other"}


def test_a_process_waits_longer_for_one_that_compiles(tmp_path, monkeypatch):
    service = Service(2)
    other = Processes(1, 2, service)
    monkeypatch.setattr(processes, "_current", Processes(0, 2, service))
    watchdog, watch = watched(tmp_path)
    with watch.measure("compute"):
        other.publish("part", "compilation")
        assert watchdog.limit() == 60
        other.publish("part", "input_wait")
        assert watchdog.limit() == 10
