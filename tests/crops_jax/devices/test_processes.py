"""Processes as threads, over a service that lives in memory."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from crops_jax.devices import processes
from crops_jax.devices.processes import Processes
from crops_jax.errors import AnotherProcessFailed, InputError, NamedFailure


class Service:
    """What Processes uses of the client of JAX's coordination service."""

    def __init__(self, count):
        self._values, self._barriers, self._count = {}, {}, count
        self._lock = threading.Lock()

    def key_value_set(self, key, value, allow_overwrite=False):
        if key in self._values and not allow_overwrite:
            raise RuntimeError(f"ALREADY_EXISTS: {key}")
        self._values[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in list(self._values.items()) if key.startswith(prefix)]

    def wait_at_barrier(self, name, timeout_in_ms):
        with self._lock:
            barrier = self._barriers.setdefault(name, threading.Barrier(self._count))
        try:
            barrier.wait(min(timeout_in_ms / 1000, 20))
        except threading.BrokenBarrierError:
            raise RuntimeError("UNAVAILABLE: a task stopped sending heartbeats") from None


class Exit(BaseException):
    """Stands for the end of a process."""


def exit_process(status):
    raise Exit(status)


def in_all(count, act, **seconds):
    """What act(processes) returns or raises in each of them."""
    service = Service(count)

    def one(index):
        try:
            return act(Processes(index, count, service, exit_process=exit_process, **seconds))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_a_process_alone_has_nothing_to_wait_for():
    alone = processes.current()
    assert (alone.index, alone.count, alone.is_first) == (0, 1, True)
    assert alone.gathered({"a": [1]}) == [{"a": [1]}]
    assert alone.from_first(None) is None
    with pytest.raises(KeyError), alone.together():
        raise KeyError


def test_all_are_given_what_each_has():
    def act(here):
        return here.gathered(here.index * 10), here.from_first(f"of {here.index}"), here.gathered([here.is_first])

    assert in_all(3, act) == [([0, 10, 20], "of 0", [[True], [False], [False]])] * 3


def test_what_a_process_leaves_is_there_for_all_until_it_leaves_something_else():
    service = Service(2)
    first, second = (Processes(index, 2, service) for index in (0, 1))
    assert first.published("times") == {}
    second.publish("times", [1])
    second.publish("times", [2])
    assert first.published("times") == {1: [2]}
    first.publish("times", [3])
    assert first.published("times") == second.published("times") == {0: [3], 1: [2]}


def test_a_failure_of_one_in_a_common_part_ends_all_with_its_status():
    def act(here):
        with here.together():
            if here.index == 1:
                raise InputError("wrong")
        return "never"

    first, second, third = in_all(3, act)
    assert isinstance(second, InputError)
    assert all(isinstance(error, AnotherProcessFailed) and error.status == 2 for error in (first, third))


@pytest.mark.parametrize("failing", [0, 1])
def test_the_first_process_runs_the_service_and_ends_last(failing):
    service, ended, both = Service(2), [], threading.Event()

    def exit_of(index):
        def exit_process(status):
            ended.append((index, status))
            here[0]._ended.set()  # ends the wait of the first process, which would take minutes
            if len(ended) == 2:
                both.set()

        return exit_process

    times = {"grace_seconds": 0.1, "poll_seconds": 0.01, "last_seconds": 300}
    here = [Processes(index, 2, service, exit_process=exit_of(index), **times) for index in (0, 1)]
    here[1 - failing].listen()
    threading.Thread(target=here[failing].failing, args=[InputError("wrong")], daemon=True).start()
    assert both.wait(60)
    assert ended == [(1, 2), (0, 2)]


def test_when_all_are_told_to_end_the_first_waits_until_the_others_have_said_so():
    service, ended, second_may_end = Service(2), [], threading.Event()
    first, second = (
        Processes(
            index,
            2,
            service,
            exit_process=lambda status, index=index: ended.append((index, status)),
            grace_seconds=300,
            last_seconds=0.01,
        )
        for index in (0, 1)
    )

    def end_second():
        second_may_end.wait(60)
        second.end(4)

    threads = [threading.Thread(target=first.end, args=[4]), threading.Thread(target=end_second)]
    for thread in threads:
        thread.start()
    while not first.published("gone"):  # the first one has begun to wait
        second_may_end.wait(0.01)
    assert ended == []
    second_may_end.set()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == [(0, 4), (1, 4)]
    assert service.key_value_dir_get("crops_jax/gone/1")


def test_failures_of_several_in_a_common_part_are_said_by_the_first_of_each_status():
    def act(here):
        with here.together():
            raise (InputError if here.index < 2 else ZeroDivisionError)("bad")

    first, second, third = in_all(3, act)
    assert isinstance(first, InputError)
    assert isinstance(second, AnotherProcessFailed)
    assert isinstance(third, ZeroDivisionError)


def test_when_all_fail_alike_the_first_says_why():
    found = in_all(3, lambda here: here.failing(NamedFailure("loss is nan")))
    assert str(found[0]) == "loss is nan"
    assert [type(error) for error in found[1:]] == [AnotherProcessFailed] * 2
    assert {error.status for error in found} == {4}


def test_one_that_fails_alone_tells_the_others_and_ends(capsys):

    def act(here):
        if here.index == 1:
            return here.failing(NamedFailure("the disk is full"))
        return here._listen()  # what its thread does while the process waits in a step

    found = in_all(3, act, grace_seconds=0.2, poll_seconds=0.01)
    assert [type(error) for error in found] == [Exit] * 3
    assert [error.args for error in found] == [(4,)] * 3
    # Once by itself, and once where most look first.
    assert capsys.readouterr().err.splitlines() == ["error: process 1 of 3: the disk is full"] * 2


def test_a_defect_of_one_has_its_traceback(capsys):
    alone = Processes(1, 2, Service(2), exit_process=exit_process, grace_seconds=0.05)
    try:
        raise ZeroDivisionError("a defect")
    except ZeroDivisionError as error:
        with pytest.raises(Exit, match="1"):
            alone.failing(error)
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err


def test_a_process_that_is_gone_is_a_named_failure():
    class Gone(Service):
        def wait_at_barrier(self, name, timeout_in_ms):
            raise RuntimeError("UNAVAILABLE: task 1 stopped sending heartbeats\nand more")

    with pytest.raises(NamedFailure, match=r"another process of the cluster is gone .*heartbeats"):
        Processes(0, 2, Gone(2)).gathered(1)
    with pytest.raises(NamedFailure):
        with Processes(0, 2, Gone(2)).together():
            raise InputError("the others cannot be told")


def test_a_failure_that_comes_from_a_lost_process_says_so(capsys):
    alone = Processes(0, 2, Service(2), exit_process=exit_process, grace_seconds=0.05)
    try:
        try:
            raise RuntimeError("INTERNAL: Barrier failed because: Task 1 heartbeat timeout.")
        except RuntimeError as error:
            raise TimeoutError("Timed out while waiting for async_write_complete barrier.") from error
    except TimeoutError as error:
        with pytest.raises(Exit, match="4"):
            alone.failing(error)
    message = capsys.readouterr().err
    assert "another process of the cluster is gone (INTERNAL: Barrier failed" in message
    assert "Traceback" not in message


def test_several_processes_are_refused_by_a_program_for_one(monkeypatch):
    processes.refuse_several("launch.train_discriminator")
    for name, value in {"ADDRESS": "", "NUM_PROCESSES": "2", "PROCESS_ID": "0"}.items():
        monkeypatch.setenv(f"JAX_{'COORDINATOR_' if not value else ''}{name}", value or "host:1")
    with pytest.raises(InputError, match=r"launch\.train_discriminator works in one process"):
        processes.refuse_several("launch.train_discriminator")


def test_times_of_a_cluster_that_cannot_be_are_refused():
    for value in (0, -1, 86_401):
        with pytest.raises(ValueError, match=rf"--cluster.heartbeat-seconds must be positive and .* found {value}"):
            processes.ClusterConfig(heartbeat_seconds=value)
        with pytest.raises(ValueError, match=rf"--cluster.initialisation-seconds must be .* found {value}"):
            processes.ClusterConfig(initialisation_seconds=value)


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"COORDINATOR_ADDRESS": "127.0.0.1:9", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    monkeypatch.setenv("CROPS_JOB", "mine")
    monkeypatch.setattr(jax.config, "update", lambda *_: None)


def test_the_times_of_a_cluster_are_those_of_the_flags(monkeypatch, second_of_two):
    """JAX joins the processes only when all have come."""
    given = {}

    def initialize(**arguments):
        given.update(arguments)
        raise RuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(processes, "meet", lambda *arguments, **named: given.update(meet=(arguments, named)))
    with pytest.raises(NamedFailure, match=r"JAX did not join the processes, which had all come \(DEADLINE_EXCEEDED\)"):
        with processes.joined(processes.ClusterConfig(initialisation_seconds=700)):
            pass
    arguments, named = given["meet"]
    assert arguments == ("127.0.0.1:9", 2, 1)
    assert 600 < named.pop("seconds") <= 700
    assert named == {"bind_address": "[::]:9", "job": "CROPS_JOB=mine"}
    assert (given["initialization_timeout"], given["heartbeat_timeout_seconds"]) == (60, 30)
    assert given["coordinator_bind_address"] == "[::]:9"


def test_a_process_whose_others_never_come_does_not_reach_jax(monkeypatch, second_of_two):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("JAX was called"))
    with pytest.raises(NamedFailure, match=r"process 1 of 2 could not meet the others at 127\.0\.0\.1:9 within 1 s"):
        with processes.joined(processes.ClusterConfig(initialisation_seconds=1)):
            pass
