"""Claims of writers on a folder in a bucket: numbered objects, of which the last one is that of the present writer.

A claim is created by a conditional put, so that of two writers one gets a number. It is renewed while its writer lives.
A claim that nobody renews, or whose process was one of this machine and has ended, belongs to a writer that was killed,
and the next writer takes the next number. If the first one goes on after all, it finds that its claim is not the last.
For that, the last claim on a folder that is written again and again, as a run is, stays there when it is given back.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crops_jax.errors import InputError, NamedFailure
from crops_jax.program.progress import say
from crops_jax.storage.marker import claim_name, claims
from crops_jax.storage.objects.store import Entry, ObjectStore

_GIVEN_BACK = b"{}"
"""The text of a claim whose writer has ended well."""
STALE_SECONDS = 600.0
"""The age at which a claim that nobody renews is one of a writer that was killed."""
_RENEWAL_SECONDS = 20.0
_LAST_SECONDS = 2.0
"""The seconds for which a writer that ends by an error waits for the last renewal."""
SILENT_SECONDS = 90.0
"""The time for which `take_when_silent` looks whether a claim is renewed."""


class Claim(NamedTuple):
    """A claim of this process."""

    number: int
    text: bytes
    """The holder as JSON: host, PID namespace, process, and what tells the process from others with its number."""

    @property
    def name(self) -> str:
        """The name of the object."""
        return claim_name(self.number)


def refuse_claimed(store: ObjectStore, listing: dict[str, Entry]) -> None:
    """Raises InputError when a writer that seems to be alive has claimed a folder.

    The writer of another container of this host is watched until it gives a sign of life, or for SILENT_SECONDS: it can
    be this container before it was started again.
    """
    for number in claims(listing)[-1:]:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            is_neighbour = _is_in_another_container(_holder(store, number))
            if not _is_held(store, number, limit=SILENT_SECONDS if is_neighbour else STALE_SECONDS):
                continue
            if not is_neighbour:
                raise _being_written(store, number)
            _say_that_it_waits(store, number)
            written = store.written(claim_name(number))
            while _is_held(store, number, limit=SILENT_SECONDS):
                if store.written(claim_name(number)) != written:
                    raise _being_written(store, number)
                time.sleep(min(1.0, SILENT_SECONDS / 10))


def take(store: ObjectStore) -> Claim:
    """Claims a folder. Raises InputError when another writer has it."""
    refuse_claimed(store, store.listing())
    return _take_next(store)


def take_when_silent(store: ObjectStore) -> Claim:
    """Claims a folder in which a program works for a long time, and which is taken over soon after it was killed.

    If the writer before may be alive, this function waits until its claim was not renewed for SILENT_SECONDS, by the
    clock of this process alone. Raises InputError when the claim is renewed.
    """
    seen: dict[int, tuple[Any, float]] = {}
    while numbers := claims(store.names_here()):
        number, now = numbers[-1], time.monotonic()
        with contextlib.suppress(FileNotFoundError):  # it has ended
            written = store.written(claim_name(number))
            if not _is_held(store, number, limit=STALE_SECONDS):
                break
            if number not in seen:
                _say_that_it_waits(store, number)
            before, since = seen.setdefault(number, (written, now))
            if written != before:
                raise _being_written(store, number)
            if now - since >= SILENT_SECONDS:
                break
        time.sleep(min(1.0, SILENT_SECONDS / 10))
    return _take_next(store)


def is_last(store: ObjectStore, number: int) -> bool:
    """Returns whether no other writer has taken over a folder from the claim of this number."""
    return claims(store.names_here())[-1:] == [number]


def release(store: ObjectStore, claim: Claim) -> None:
    """Removes a claim, and those before it, which belonged to writers that were killed."""
    store.remove([claim_name(one) for one in claims(store.names_here()) if one <= claim.number])


def give_back(store: ObjectStore, claim: Claim) -> None:
    """Frees a folder, and leaves the number of the claim there, by which earlier writers see that they are not last."""
    store.write(claim.name, _GIVEN_BACK)
    store.remove([claim_name(one) for one in claims(store.names_here()) if one < claim.number])


@contextlib.contextmanager
def renewed(store: ObjectStore, claim: Claim) -> Iterator[None]:
    """Writes a claim again and again, so that it does not look abandoned, until the block ends."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEWAL_SECONDS):
            with contextlib.suppress(InputError, NamedFailure):  # the uploads meet the same error
                store.write(claim.name, claim.text)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join(_LAST_SECONDS)  # a server that is down must not hold up a program that ends
        raise
    ended.set()
    thread.join()


def _take_next(store: ObjectStore) -> Claim:
    number = max(claims(store.names_here()), default=0) + 1
    holder = {**_this_process(), "token": secrets.token_hex(8)}
    claim = Claim(number, json.dumps(holder).encode())
    if not store.create(claim.name, claim.text):
        raise _being_written(store, number)
    return claim


def _this_process() -> dict[str, Any]:
    process = {"process": os.getpid(), "started": _start_of(os.getpid())}
    return {"host": socket.gethostname(), "boot": _boot(), "pid_namespace": _pid_namespace(), **process}


def _holder(store: ObjectStore, number: int) -> dict[str, Any]:
    """Returns what identifies the process of a claim; empty when it cannot be read."""
    with contextlib.suppress(FileNotFoundError):
        return _parsed(store.read(claim_name(number)))
    return {}


def _parsed(text: bytes) -> dict[str, Any]:
    """Returns what identifies the process of a claim with this text; empty when it is none."""
    with contextlib.suppress(ValueError):
        holder = json.loads(text)
        if isinstance(holder, dict) and isinstance(holder.get("process"), int) and "host" in holder:
            return holder
    return {}


def _is_held(store: ObjectStore, number: int, *, limit: float) -> bool:
    """Returns whether a claim was renewed within `limit` seconds by a process that may be alive."""
    return store.age_seconds(claim_name(number)) < limit and not _is_free(store, number)


def _is_free(store: ObjectStore, number: int) -> bool:
    """Returns whether a claim was given back, or its process has ended. Raises FileNotFoundError without a claim."""
    text = store.read(claim_name(number))
    return text == _GIVEN_BACK or _is_dead(_parsed(text))


def _is_dead(holder: dict[str, Any]) -> bool:
    """Returns whether the process of a claim was one whose number this process can see, and has ended."""
    if not _is_on_this_host(holder) or holder.get("pid_namespace") != _pid_namespace():
        return False
    return _start_of(holder["process"]) != holder.get("started")


def _is_in_another_container(holder: dict[str, Any]) -> bool:
    """Returns whether the process of a claim was one of this host, in a container where processes have other numbers.

    Containers that use the network of their host have its name. A container that is started again has the name of the
    one before it.
    """
    return _is_on_this_host(holder) and holder.get("pid_namespace") != _pid_namespace()


def _is_on_this_host(holder: dict[str, Any]) -> bool:
    return (holder.get("host"), holder.get("boot")) == (socket.gethostname(), _boot())


def _pid_namespace() -> str:
    """Returns what identifies the processes that have numbers here; empty where Linux does not tell."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _boot() -> str:
    """Returns what identifies this start of the machine; empty where Linux does not tell."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def _start_of(process: int) -> int:
    """Returns the time when a process was started, in ticks since the start of the machine; -1 when it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The fields after the name of the program, which stands in brackets and can have spaces in it.
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return -1 if fields[0] in ("Z", "X") else int(fields[19])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, 0)
        return 0  # a system without /proc
    return -1


def _say_that_it_waits(store: ObjectStore, number: int) -> None:
    who = _who(_holder(store, number))
    say(f"{store.url} is claimed by {who}; waiting up to {SILENT_SECONDS:.0f} s for a sign of life")


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder['process']} of {holder['host']}" if holder else "another process"


def _being_written(store: ObjectStore, number: int) -> InputError:
    return InputError(
        f"{store.url} is being written by {_who(_holder(store, number))}; wait until it ends, or, if it was killed, "
        f"for {STALE_SECONDS / 60:.0f} minutes, and call the same command again"
    )
