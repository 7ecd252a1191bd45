"""The roll call of the processes of a program: process 0 waits for all others before JAX joins them.

JAX's client ends its process with SIGABRT when it cannot join, whatever the reason is, and waits where no signal is
answered. A client that reaches the service of another program with the same port even ends that one. So the processes
first meet at the same address by this module, in which a wait has a deadline, a signal is answered, and every failure
has a name. Process 0 listens at the port of the coordination service, the others report with their number, and when all
have come, process 0 gives them leave and frees the port for the service.
"""

import contextlib
import errno
import hashlib
import selectors
import socket
import sys
import time
from collections.abc import Collection, Iterator

from crops_jax.errors import InputError, NamedFailure, one_line

_GREETING = "crops_jax roll call"
_GO, _TAKEN, _OTHER, _REFUSED = "go", "taken", "other", "refused "
"""The answers of process 0: all have come; another process has this number; another job; why it cannot take part."""
_MOST_BYTES = 256
"""The maximum length of a line of either side."""
_POLL_SECONDS = 0.2
_PORT_SECONDS = 10.0
"""The time for which process 0 waits for its port, which a program that is just ending can still hold."""
_TAKEN_SECONDS = 30.0
"""The time for which a process asks again while another one has its number, which may have died with its machine."""
_NOTE_SECONDS = 60.0
"""The interval at which process 0 says for whom it waits."""
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""After so many seconds a connection whose machine is gone breaks; the names that a platform lacks are left out."""
_SHOWN = 10
"""The number of missing processes that a message names."""


def meet(address: str, count: int, index: int, *, seconds: float, bind_address: str = "", job: str = "") -> None:
    """Returns when all processes of the program have come.

    Args:
      address: HOST:PORT of process 0. A host with colons is in brackets.
      count: the number of processes.
      index: the number of this process.
      seconds: the time after which this process gives up.
      bind_address: HOST:PORT where process 0 listens; by default the port of `address` on all addresses of the machine.
      job: what the processes of this start have in common, and those of another start have not.

    Raises:
      InputError: the port is taken, or the processes contradict one another.
      NamedFailure: the others did not come, or process 0 was not reached.
    """
    deadline = time.monotonic() + seconds
    mark = hashlib.sha256(job.encode()).hexdigest()[:16]
    if index == 0:
        with _listening(bind_address or f":{address.rpartition(':')[2]}", deadline) as listener:
            _call(listener, mark, count, deadline, seconds)
    else:
        _report(address, f"{_GREETING} {mark} {count} {index}\n", count, index, deadline, seconds)


@contextlib.contextmanager
def _listening(address: str, deadline: float) -> Iterator[socket.socket]:
    """Yields a socket that listens. Raises InputError when the address cannot be used."""
    host, port = _parts(address)
    any_address = host in ("", "::", "0.0.0.0")
    both = any_address and host != "0.0.0.0" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    until = min(deadline, time.monotonic() + _PORT_SECONDS)
    while True:
        try:
            listener = socket.create_server(
                ("" if any_address else host, port), family=family, dualstack_ipv6=both, backlog=1024
            )
            break
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
                continue
            remedy = (
                "another program has it, or an earlier one that has not ended: stop that, or choose another port for "
                "all processes (JAX_COORDINATOR_ADDRESS=HOST:PORT; PORT for launch/scripts/one_machine.sh)"
                if error.errno == errno.EADDRINUSE
                else "check JAX_COORDINATOR_BIND_ADDRESS, if it is set, and the number of the port"
            )
            raise InputError(f"process 0 cannot listen at {address} ({one_line(error)}); {remedy}") from error
    with listener:
        yield listener


def _call(listener: socket.socket, mark: str, count: int, deadline: float, seconds: float) -> None:
    """Waits for the other processes and gives them leave. Raises NamedFailure when one is missing at the deadline."""
    listener.setblocking(False)
    note = time.monotonic() + _NOTE_SECONDS
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        selector.register(listener, selectors.EVENT_READ)
        lines: dict[socket.socket, bytes] = {}
        present: dict[int, socket.socket] = {}
        while len(present) < count - 1 or not all(map(_is_open, present.values())):
            absent = count - 1 - len(present)
            if time.monotonic() >= deadline:
                raise NamedFailure(
                    f"{absent} of {count} processes did not come within {seconds:g} s (number "
                    f"{_absent(present, count)}); check that all were started with the address of process 0, or raise "
                    "--cluster.initialisation-seconds"
                )
            if time.monotonic() >= note:
                print(
                    f"process 0 waits for {absent} of {count} processes (number {_absent(present, count)})",
                    file=sys.stderr,
                )
                note = time.monotonic() + _NOTE_SECONDS
            for key, _ in selector.select(_POLL_SECONDS):
                if key.fileobj is listener:
                    if (accepted := _accepted(listener)) is not None:
                        opened.enter_context(accepted)
                        selector.register(accepted, selectors.EVENT_READ)
                        lines[accepted] = b""
                    continue
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if (received := _received(connection)) is None:
                    continue
                lines[connection] += received
                is_whole = b"\n" in lines[connection]
                answer = _greeted(lines[connection], mark, count, present, connection) if is_whole else ""
                if answer:
                    _sent(connection, f"{answer}\n")
                if answer or not received or len(lines[connection]) > _MOST_BYTES:
                    for number in [number for number, one in present.items() if one is connection]:
                        del present[number]
                    selector.unregister(connection)
                    connection.close()
        for connection in present.values():
            _sent(connection, f"{_GO}\n")


def _absent(present: Collection[int], count: int) -> str:
    """Returns the numbers of the first processes that have not come."""
    numbers = [str(number) for number in range(1, count) if number not in present]
    return ", ".join([*numbers[:_SHOWN], "..."] if len(numbers) > _SHOWN else numbers)


def _greeted(line: bytes, mark: str, count: int, present: dict[int, socket.socket], connection: socket.socket) -> str:
    """Notes the process that sent a line, and returns the answer to one that cannot take part."""
    said = line.decode("ascii", "replace").split("\n")[0]
    words = said.removeprefix(_GREETING).split()
    if not said.startswith(f"{_GREETING} ") or len(words) != 3 or not all(word.isdecimal() for word in words[1:]):
        return f"{_REFUSED}this is a roll call of crops_jax"
    theirs, number = map(int, words[1:])
    if words[0] != mark:
        return _OTHER
    if theirs != count:
        return f"{_REFUSED}process 0 was started as one of {count} processes, and this one as one of {theirs}"
    if not 0 < number < count or (_is_open(present.get(number)) and present[number] is not connection):
        return _TAKEN
    present[number] = connection
    return ""


def _accepted(listener: socket.socket) -> socket.socket | None:
    """Returns a new connection. Raises NamedFailure when this process may not open more of them."""
    try:
        connection = listener.accept()[0]
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise NamedFailure(
                f"process 0 cannot take so many connections ({one_line(error)}); raise the limit with ulimit -n"
            ) from error
        return None  # the other end is gone already
    connection.setblocking(False)
    _keep_alive(connection)
    return connection


def _report(address: str, greeting: str, count: int, index: int, deadline: float, seconds: float) -> None:
    """Reports to process 0 and waits for its leave. Raises InputError or NamedFailure without it."""
    host, port = _parts(address)
    reason, taken_until = "", None
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 5.0)) as connection:
                _keep_alive(connection)
                reply = _reply(connection, greeting, deadline)
        except (OSError, UnicodeError) as error:
            reason = one_line(error)
            time.sleep(min(_POLL_SECONDS, left))
            continue
        if reply == _GO:
            return
        now = time.monotonic()
        taken_until = (taken_until or now + _TAKEN_SECONDS) if reply == _TAKEN else None
        if reply.startswith(_REFUSED) or (taken_until and now >= taken_until):
            why = reply.removeprefix(_REFUSED) if reply != _TAKEN else f"another process has come as number {index}"
            raise InputError(
                f"process {index} cannot join at {address}: {why}; start every process once, with the same "
                "JAX_NUM_PROCESSES and numbers of their own"
            )
        reason = "process 0 still waited for others" if now >= deadline else _ANSWERS.get(reply, _ANSWERS[""])
        time.sleep(0 if now >= deadline else _POLL_SECONDS)
    raise NamedFailure(
        f"process {index} of {count} could not meet the others at {address} within {seconds:g} s"
        f"{f' ({reason})' if reason else ''}; check the address of process 0 and its port, and that all were started, "
        "or raise --cluster.initialisation-seconds"
    )


_ANSWERS = {
    _TAKEN: "another process has come with its number",
    _OTHER: "process 0 of another start answers there",
    "": "another program answers there, or process 0 ended",
}


def _reply(connection: socket.socket, greeting: str, deadline: float) -> str:
    """Returns the line of process 0; what came before the end of the connection or the deadline, if that is earlier."""
    connection.settimeout(_POLL_SECONDS)
    said = b""
    with contextlib.suppress(ConnectionError):  # the program at the other end does not know this greeting
        connection.sendall(greeting.encode())
        while b"\n" not in said and len(said) <= _MOST_BYTES and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if not (part := connection.recv(_MOST_BYTES)):
                    break
                said += part
    return said.decode("ascii", "replace").split("\n")[0]


def _is_open(connection: socket.socket | None) -> bool:
    """Returns whether the process at the other end still waits."""
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _received(connection: socket.socket) -> bytes | None:
    """Returns what has arrived, b"" at the end of a connection, and None if there is nothing after all."""
    try:
        return connection.recv(_MOST_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _sent(connection: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(text.encode())


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
