"""One function over many tasks in worker processes, results in the order of the tasks.

with worker_processes(function, workers=4) as mapped:
    for result in mapped(tasks):        # like map(function, tasks)
        ...

Processes are started by "spawn", since threads of JAX, TensorFlow and DuckDB do not survive a fork. They write nothing
themselves and end with their parent, however it ends: what a function returns is all that there is of them.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

from crops_jax.errors import InputError, NamedFailure

_AHEAD = 4
"""Tasks handed out before the result that is due has come, for each worker: what is kept in memory is bounded."""

_NAMED = (InputError, NamedFailure, OSError)
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def worker_processes(
    function: Callable[[_Task], _Result], *, workers: int
) -> Iterator[Callable[[Iterable[_Task]], Iterator[_Result]]]:
    """Gives a function like map(function, tasks) that works in `workers` processes; 1 works in this one.

    `function` is copied to every worker once, so it is a function of a module or a dataclass with `__call__`. Results
    come in the order of the tasks, and not many more tasks are taken than results were asked for. When the block
    ends, well or not, the processes are gone.

    Raises, out of the mapping:
      InputError, NamedFailure, OSError: what the function raised, as it was.
      NamedFailure: a worker ended before its time, as the kernel does when memory is short.
      RuntimeError: anything else that the function raised, with the worker's traceback.
    """
    if workers == 1:
        yield functools.partial(map, function)
        return
    context = multiprocessing.get_context("spawn")
    started: dict[Connection, BaseProcess] = {}
    try:
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, function), name=f"worker {number}", daemon=True)
            process.start()
            started[ours] = process
            # The last copy of their end is the worker's own: its end is our end of file.
            theirs.close()
        yield functools.partial(_mapped, started)
    finally:
        for connection, process in started.items():
            connection.close()
            process.kill()
        for process in started.values():
            process.join()


def _mapped(workers: dict[Connection, BaseProcess], tasks: Iterable[Any]) -> Iterator[Any]:
    numbered = enumerate(tasks)
    idle, busy = list(workers), {}
    early: dict[int, Any] = {}
    due, all_taken = 0, False
    while True:
        while idle and not all_taken and len(busy) + len(early) < _AHEAD * len(workers):
            number, task = next(numbered, (-1, None))
            all_taken = number < 0
            if not all_taken:
                connection = idle.pop()
                _send(workers, connection, task)
                busy[connection] = number
        if due in early:
            yield early.pop(due)
            due += 1
        elif not busy:
            return
        else:
            for connection in cast(list[Connection], wait(list(busy))):
                early[busy.pop(connection)] = _receive(workers, connection)
                idle.append(connection)


def _send(workers: dict[Connection, BaseProcess], connection: Connection, task: Any) -> None:
    try:
        connection.send(task)
    except ConnectionError as error:
        raise _ended(workers[connection]) from error


def _receive(workers: dict[Connection, BaseProcess], connection: Connection) -> Any:
    try:
        well, result = connection.recv()
    except (EOFError, OSError) as error:
        raise _ended(workers[connection]) from error
    if well:
        return result
    raise result


def _ended(process: BaseProcess) -> NamedFailure:
    process.join()
    code = process.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return NamedFailure(
        f"a worker process {how} before its work was done, as happens when memory runs out; nothing half-written is "
        "kept; free some memory or give fewer --workers, and call the same command again"
    )


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a worker: tasks in, (True, result) or (False, error) out."""
    # The parent answers to signals, which a terminal or a scheduler sends to all processes of the group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # One thread a worker: the workers are the parallelism.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    while True:
        try:
            task = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = (True, function(task))
        except _NAMED as error:
            answer = (False, error)
        except BaseException:
            answer = (False, RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
        try:
            connection.send(answer)
        except ConnectionError:
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
