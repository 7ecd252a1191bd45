"""The progress of long work, in one line on standard error.

On a terminal the line is at most 80 columns wide and is drawn again in place. Of nested lines the innermost one is
shown. In a file or a pipe every line is written as a plain one: the first, the last, and one each 30 s. The line goes
on while nothing moves, and says "compiling" while JAX compiles. In a chain of programs it begins with the number of the
step, and ends with the time that is left for the whole chain.

Rates and times are averages since the first update, so that the compilation before it does not count.
"""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from crops_jax.program.place import Place, place_in_chain
from crops_jax.program.terminal import columns, is_terminal
from crops_jax.storage.names import shown

FILE_SECONDS = 30.0
"""The interval of lines in a file."""
_TERMINAL_SECONDS = 0.25
_NAME_COLUMNS = 32
_LOWERED, _COMPILED = "/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration"

_Item = TypeVar("_Item")
duration = tqdm.format_interval
"""Returns seconds as MM:SS, or as H:MM:SS."""


def say(text: str) -> None:
    """Prints a message on a line of its own on standard error, above the line of progress if there is one.

    Paths in it are those that the user gave (crops_jax.storage.names).
    """
    _screen.say(shown(text))


class ProgressLine(Generic[_Item]):
    """The progress of one piece of work: a context in which `update` is called, or an iterable to run through.

    A line that is opened appears when `delay` seconds have passed, so that short work says nothing.
    """

    def __init__(
        self,
        iterable: Iterable[_Item] = (),
        *,
        desc: str,
        unit: str,
        total: int | None = None,
        initial: int = 0,
        delay: float = 2.0,
        leave: bool = True,
        disable: bool = False,
    ):
        """
        Args:
          iterable: the items to run through; without them, `update` is called instead.
          desc: the name of the work.
          unit: the name of what is counted, in the plural.
          total: how many there are, by default the length of the iterable; None: it is not known.
          initial: how many were done before.
          delay: the time in seconds after which the line appears.
          leave: whether the last state stays on a terminal. In a file it always does.
          disable: whether nothing is shown, as in all processes of a cluster but the first.
        """
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # pyright: ignore[reportArgumentType]
        self._iterable, self._name, self._unit, self._total = iterable, disp_trim(desc, _NAME_COLUMNS), unit, total
        self._done, self._leave = initial, leave
        self._start = time.monotonic()
        self._shown_from = self._start + delay
        self._first: tuple[float, int] | None = None
        self._figures: dict[str, str] = {}
        self._is_open = not disable
        self.written: float | None = None
        """The time at which the line was last written to a file, or drawn; None before."""
        if self._is_open:
            _screen.open(self)

    def update(self, count: int = 1) -> None:
        """Counts further pieces of the work as done."""
        self._done += count
        if self._first is None:
            self._first = (time.monotonic(), self._done)
        if self._is_open:
            _screen.moved()

    def show(self, **figures: str) -> None:
        """Shows figures beside the count from now on, as far as the line has room for them."""
        self._figures = figures

    def close(self) -> None:
        """Writes the last state, and ends the line. A second call does nothing."""
        if self._is_open:
            self._is_open = False
            _screen.close(self, stays=self._leave)

    def is_due(self, now: float) -> bool:
        """Returns whether the line is shown yet."""
        return now >= self._shown_from

    def text(self, now: float, *, width: int, state: str = "", ended: bool = False) -> str:
        """Returns the line.

        Args:
          now: the present time (time.monotonic()).
          width: the maximum number of columns. Figures, then times and rates are left out where there is no room.
          state: a word for what holds up the work, such as "compiling".
          ended: whether the work has ended, so that nothing is left.
        """
        place, done, total = _place(), self._done, self._total
        head = f"{place.label} {self._name}" if place else self._name
        if total:
            head += f" {100 * done // total}%"
        number = _thousands if max(done, total or 0) < 1_000_000 else tqdm.format_sizeof
        count = number(done) if total is None else f"{number(done)}/{number(total)}"
        rate = self._rate(now)
        left = max(total - done, 0) / rate if total is not None and rate and not ended else None
        chain = "" if place is None or left is None else f"chain {_over(place)}{duration(place.left(left))} left"
        # The parts in their order, each with its rank among those that are left out for lack of room.
        parts = [
            (0, head),
            (3, f"{count} {self._unit}"),
            (0, state),
            (4, _speed(rate, self._unit)),
            (1, "" if left is None else f"{duration(left)} left"),
            (2, chain),
            *((6, f"{name} {value}") for name, value in self._figures.items()),
            (5, f"{duration(now - self._start)} spent"),
        ]
        parts = [(rank, part) for rank, part in parts if part]
        while len(parts) > 1 and disp_len(_joined(parts)) > width:
            worst = max(rank for rank, _ in parts)
            parts.pop(max(index for index, (rank, _) in enumerate(parts) if rank == worst))
        return disp_trim(_joined(parts), width)

    def _rate(self, now: float) -> float | None:
        """Returns how many pieces are done in a second since the first update, or None before the second one."""
        if self._first is None or self._done <= self._first[1] or now <= self._first[0]:
            return None
        return (self._done - self._first[1]) / (now - self._first[0])

    def __iter__(self) -> Iterator[_Item]:
        with self:
            for item in self._iterable:
                yield item
                self.update()

    def __enter__(self) -> "ProgressLine[_Item]":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class _Screen:
    """Standard error, on which all lines of this process are drawn. A thread keeps them moving."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lines: list[ProgressLine] = []
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._drawn_columns = 0
        self._drawn_at = 0.0

    def open(self, line: ProgressLine) -> None:
        watch_compilation()
        with self._lock:
            self._lines.append(line)
            self.draw()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_drawing, name="progress", daemon=True)
                self._thread.start()

    def close(self, line: ProgressLine, *, stays: bool) -> None:
        with self._lock:
            self._lines.remove(line)
            _Compilation.runs = False
            now = time.monotonic()
            if line.is_due(now) or line.written is not None:
                if not is_terminal(sys.stderr):
                    self._write_plain(line, now, ended=True)
                elif stays:
                    self._redraw(line.text(now, width=columns(sys.stderr) - 1, ended=True))
                    _write("\n")
                    self._drawn_columns = 0
            if self._drawn_columns:
                self._redraw("")
            if not self._lines:
                self._wake.set()
            self.draw()

    def moved(self) -> None:
        """Notes that a line has moved. The lines are drawn if the thread had no opportunity to draw them in time."""
        _Compilation.runs = False
        if time.monotonic() - self._drawn_at > 4 * _TERMINAL_SECONDS:
            watch_compilation()
            self.draw()

    def draw(self) -> None:
        """Draws the innermost line on a terminal, or writes the lines that are due to a file."""
        with self._lock:
            self._drawn_at = now = time.monotonic()
            lines = [line for line in self._lines if line.is_due(now)]
            if not is_terminal(sys.stderr):
                for line in lines:
                    if line.written is None or now - line.written >= FILE_SECONDS:
                        self._write_plain(line, now)
            elif lines:
                lines[-1].written = now
                self._redraw(lines[-1].text(now, width=columns(sys.stderr) - 1, state=_Compilation.state()))

    def say(self, text: str) -> None:
        with self._lock:
            if self._drawn_columns:
                self._redraw("")
            print(text, file=sys.stderr, flush=True)
            if is_terminal(sys.stderr):
                self.draw()

    def _write_plain(self, line: ProgressLine, now: float, *, ended: bool = False) -> None:
        line.written = now
        state = "" if ended else _Compilation.state()
        _write(line.text(now, width=columns(sys.stderr), state=state, ended=ended) + "\n")

    def _redraw(self, text: str) -> None:
        """Replaces the line on the terminal; spaces cover the rest of a longer one."""
        width = disp_len(text)
        _write(f"\r{text}{' ' * (self._drawn_columns - width)}" + ("" if text else "\r"))
        self._drawn_columns = width

    def _keep_drawing(self) -> None:
        while True:
            with self._lock:
                if not self._lines:
                    self._thread = None
                    return
                self._wake.clear()
            self._wake.wait(_TERMINAL_SECONDS)
            self.draw()


class _Compilation:
    """Whether JAX compiles a program at present, as its events tell. A first call of a program takes long for it."""

    runs = False
    is_watched = False

    @classmethod
    def state(cls) -> str:
        return "compiling" if cls.runs else ""

    @classmethod
    def note(cls, event: str, *_: Any, **__: Any) -> None:
        if event in (_LOWERED, _COMPILED):
            cls.runs = event == _LOWERED


def watch_compilation() -> None:
    """Listens to the events of JAX, once it is loaded. A line of progress never loads it."""
    jax = sys.modules.get("jax")
    if not _Compilation.is_watched and jax is not None and hasattr(jax, "monitoring"):
        _Compilation.is_watched = True
        jax.monitoring.register_event_duration_secs_listener(_Compilation.note)


@functools.cache
def _place() -> Place | None:
    return place_in_chain()


def _over(place: Place) -> str:
    return "over " if place.unknown else ""


def _thousands(value: int) -> str:
    return f"{value:,}"


def _speed(rate: float | None, unit: str) -> str:
    if not rate:
        return ""
    if rate < 1:
        return f"{1 / rate:.1f} s each"
    return f"{rate:.1f} {unit}/s" if rate < 1000 else f"{tqdm.format_sizeof(rate)} {unit}/s"


def _joined(parts: list[tuple[int, str]]) -> str:
    return ", ".join(part for _, part in parts)


def _write(text: str) -> None:
    # A terminal that is gone, or a standard error that a test has closed, is no reason to end the work.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


_screen = _Screen()
