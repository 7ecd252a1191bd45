"""Processes as threads that meet over real sockets of this machine."""

import contextlib
import errno
import hashlib
import socket
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from crops_jax.devices import roll_call
from crops_jax.devices.roll_call import meet
from crops_jax.errors import InputError, NamedFailure
from tests.clusters import free_port


@pytest.fixture
def address():
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def start():
    """Starts meet(...) in a thread and returns the future of its result, which is the exception that it raised."""

    def call(*arguments, **named):
        try:
            return meet(*arguments, **named)
        except Exception as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        yield lambda *arguments, **named: pool.submit(call, *arguments, **named)


def connected(address):
    """A connection to process 0, once that listens."""
    host, port = address.split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=60)
        except ConnectionRefusedError:
            continue


def greeting(numbers):
    return f"crops_jax roll call {hashlib.sha256(b'').hexdigest()[:16]} {numbers}".encode()


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 2, 0]])
def test_all_go_on_when_all_have_come_and_the_port_is_free_then(order, address, start):
    results = [start(address, 4, index, seconds=60) for index in order]
    assert [result.result(60) for result in results] == [None] * 4
    with socket.create_server(("127.0.0.1", int(address.split(":")[1]))):
        pass


def test_an_address_of_ipv6_can_be_given(start):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    address = f"[::1]:{free_port()}"
    results = [start(address, 2, index, seconds=60, bind_address=address) for index in (0, 1)]
    assert [result.result(60) for result in results] == [None] * 2


def test_those_who_did_not_come_are_named(address, start):
    first, third = (start(address, 4, index, seconds=1).result(60) for index in (0, 2))
    assert isinstance(first, NamedFailure)
    assert str(first).startswith("3 of 4 processes did not come within 1 s (number 1, 2, 3); check")
    assert isinstance(third, NamedFailure)  # process 0 has given up
    assert "process 2 of 4 could not meet the others at 127.0.0.1" in str(third)
    assert "efused" in str(third)
    waiting = [start(address, 20, index, seconds=1) for index in (0, 19)]
    first, last = (one.result(60) for one in waiting)
    assert "of 20 processes did not come within 1 s (number 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" in str(first)
    assert "process 19 of 20 could not meet the others" in str(last)


def test_a_host_without_an_address_is_named(start):
    found = start("nosuch.invalid:1", 2, 1, seconds=0.5).result(60)
    assert isinstance(found, NamedFailure)
    assert "at nosuch.invalid:1 within 0.5 s (" in str(found)


def test_a_port_that_is_taken_is_an_error_of_the_user(address, start, monkeypatch):
    monkeypatch.setattr(roll_call, "_PORT_SECONDS", 0.3)
    with socket.create_server(("0.0.0.0", int(address.split(":")[1]))):
        found = start(address, 2, 0, seconds=60).result(60)
    assert isinstance(found, InputError)
    assert "process 0 cannot listen at :" in str(found)
    assert "choose another port" in str(found)


def test_a_port_that_is_freed_in_time_is_taken(address, start):
    with socket.create_server(("0.0.0.0", int(address.split(":")[1]))) as earlier:
        results = [start(address, 2, index, seconds=60) for index in (0, 1)]
        earlier.accept()[0].close()  # process 1 reached the earlier program
    assert [result.result(60) for result in results] == [None] * 2


def test_one_number_is_given_to_one_process(address, start, monkeypatch):
    monkeypatch.setattr(roll_call, "_TAKEN_SECONDS", 0.5)
    first, one, two = (start(address, 3, index, seconds=60) for index in (0, 1, 1))
    refused = wait([one, two], timeout=60, return_when=FIRST_COMPLETED).done.pop().result(0)
    assert isinstance(refused, InputError)
    assert "another process has come as number 1; start every process once" in str(refused)
    assert start(address, 3, 2, seconds=60).result(60) is None
    assert first.result(60) is None


def test_processes_of_different_counts_do_not_join(address, start):
    first = start(address, 2, 0, seconds=60)
    refused = start(address, 3, 1, seconds=60).result(60)
    assert isinstance(refused, InputError)
    assert "process 0 was started as one of 2 processes, and this one as one of 3" in str(refused)
    assert start(address, 2, 1, seconds=60).result(60) is None
    assert first.result(60) is None


def test_a_process_that_lives_makes_place_for_none_and_a_lost_one_for_its_successor(address, start):
    """The successor asks again until the connection of the lost one is known to be broken."""
    first = start(address, 3, 0, seconds=60)
    with connected(address) as lost:
        lost.sendall(greeting("3 1\n"))
        successor = start(address, 3, 1, seconds=60)
        assert start(address, 3, 1, seconds=0.5).exception(60) is None
        assert not successor.done()
    assert start(address, 3, 2, seconds=60).result(60) is None
    assert [first.result(60), successor.result(60)] == [None, None]


def test_processes_of_two_starts_do_not_join(address, start):
    first = start(address, 2, 0, seconds=60, job="a")
    other = start(address, 2, 1, seconds=1, job="b").result(60)
    assert isinstance(other, NamedFailure)
    assert start(address, 2, 1, seconds=60, job="a").result(60) is None
    assert first.result(60) is None


def test_process_0_says_for_whom_it_waits(address, start, monkeypatch, capsys):
    monkeypatch.setattr(roll_call, "_NOTE_SECONDS", 0.3)
    start(address, 3, 0, seconds=1).result(60)
    assert "process 0 waits for 2 of 3 processes (number 1, 2)" in capsys.readouterr().err


def test_too_few_files_are_named():
    class Listener:
        def accept(self):
            raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(NamedFailure, match=r"Too many open files.*ulimit -n"):
        roll_call._accepted(Listener())


def test_a_process_that_died_can_come_again(address, start):
    first = start(address, 3, 0, seconds=60)
    with connected(address) as died:
        died.sendall(greeting("3 1\n"))
    with connected(address) as died:
        died.sendall(greeting("3 "))  # half a line
    others = [start(address, 3, index, seconds=60) for index in (1, 2)]
    assert [other.result(60) for other in others] == [None] * 2
    assert first.result(60) is None


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000, b"crops_jax roll call j 2 x\n", b"\n"])
def test_process_0_takes_no_other_program_for_a_process(noise, address, start):
    first = start(address, 2, 0, seconds=60)
    with connected(address) as other:
        with contextlib.suppress(ConnectionResetError):
            other.sendall(noise)
            assert other.recv(100) in (b"", b"refused this is a roll call of crops_jax\n")
    assert start(address, 2, 1, seconds=60).result(60) is None
    assert first.result(60) is None


def test_a_process_does_not_join_another_program(address, start):
    """As the service of an earlier job does, it takes the connection and closes it after some bytes."""
    answered, end = threading.Event(), threading.Event()

    def serve(server):
        server.settimeout(0.1)
        while not end.is_set():
            try:
                with server.accept()[0] as connection:
                    connection.sendall(b"\x00\x00\x12\x04\x00")
                    answered.set()
            except TimeoutError:
                continue

    with socket.create_server(("127.0.0.1", int(address.split(":")[1]))) as server:
        thread = threading.Thread(target=serve, args=[server])
        thread.start()
        gave_up = start(address, 2, 1, seconds=1).result(60)
        patient = start(address, 2, 1, seconds=60)
        answered.clear()
        assert answered.wait(60)
        end.set()
        thread.join()
    assert isinstance(gave_up, NamedFailure)
    assert "(another program answers there, or process 0 ended)" in str(gave_up)
    assert start(address, 2, 0, seconds=60).result(60) is None
    assert patient.result(60) is None
