"""Maps one function over many tasks in worker processes. Results are in the order of the tasks.

with worker_processes(function, workers=4) as mapped:
    for result in mapped(tasks):        # like map(function, tasks)
        ...

Processes are started by "spawn", because threads of JAX, TensorFlow and DuckDB do not survive a fork. They write no
files and end with their parent, however it ends. The returned value of the function is their only effect.
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

_TASKS_AHEAD = 4
"""The maximum number of tasks for each worker that are sent before the next result in order arrives. It bounds the
memory.
"""

_NAMED = (InputError, NamedFailure, OSError)
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def usable_cores() -> int:
    """Returns the number of cores that this process can run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def worker_processes(
    function: Callable[[_Task], _Result], *, workers: int
) -> Iterator[Callable[[Iterable[_Task]], Iterator[_Result]]]:
    """Yields a function like map(function, tasks) that works in `workers` processes; with 1 it works in this process.

    `function` is copied to every worker once, so it must be a function of a module or a dataclass with `__call__`.
    Results are in the order of the tasks, and only a few more tasks are taken than results were requested. When the
    block ends, with or without an error, the processes have ended too.

    Raises, from the mapping:
      InputError, NamedFailure, OSError: the error that the function raised, unchanged.
      NamedFailure: a worker ended early, for example because the kernel killed it when memory was short.
      RuntimeError: any other error that the function raised, with the worker's traceback.
    """
    if workers == 1:
        yield functools.partial(map, function)
        return
    context = multiprocessing.get_context("spawn")
    started: dict[Connection, BaseProcess] = {}
    try:
        for number in range(workers):
            parent_end, worker_end = context.Pipe()
            process = context.Process(target=_work, args=(worker_end, function), name=f"worker {number}", daemon=True)
            process.start()
            started[parent_end] = process
            # After this the worker holds the only copy of its end, so the parent reads an end of file when it ends.
            worker_end.close()
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
        while idle and not all_taken and len(busy) + len(early) < _TASKS_AHEAD * len(workers):
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
        succeeded, result = connection.recv()
    except (EOFError, OSError) as error:
        raise _ended(workers[connection]) from error
    if succeeded:
        return result
    raise result


def _ended(process: BaseProcess) -> NamedFailure:
    process.join()
    code = process.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return NamedFailure(
        f"a worker process {how} before its work was done, as happens when memory runs out; no incomplete output is "
        "kept; free some memory or use fewer --workers, and call the same command again"
    )


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Runs in a worker: it receives tasks and sends (True, result) or (False, error)."""
    # Only the parent handles signals, which a terminal or a scheduler sends to all processes of the group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Each worker uses one thread, because the workers are the parallelism.
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
