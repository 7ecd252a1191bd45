"""Several calls at the same time, which a signal can end."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
Item = TypeVar("Item")

THREADS = 16
"""The maximum number of calls of `in_parallel` at the same time."""


def in_parallel(act: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
    """Calls a function for each item, in threads, and returns the results in the order of the items.

    All calls are made. Then the error of the first item that has one is raised. When a signal interrupts the wait, no
    further call is made, and those that run do not hold the end of the program up, as threads of an executor would.
    """
    calls = [(item, concurrent.futures.Future[T]()) for item in items]
    waiting: queue.SimpleQueue[tuple[Item, concurrent.futures.Future[T]]] = queue.SimpleQueue()
    for call in calls:
        waiting.put(call)
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                item, result = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                result.set_result(act(item))
            except BaseException as error:
                result.set_exception(error)

    for _ in range(min(THREADS, len(calls))):
        threading.Thread(target=work, daemon=True).start()
    try:
        concurrent.futures.wait([result for _, result in calls])
    finally:
        stopped.set()
    return [result.result() for _, result in calls]
