"""Progress on terminals and in files: what stands in the line, how wide it is, and when it is written."""

import sys
import threading

import jax
import jax.monitoring
import jax.numpy as jnp
import pytest
from tqdm.utils import disp_len

from crops_jax.program import progress
from crops_jax.program.place import Place, place_in_chain
from crops_jax.program.progress import FILE_SECONDS, ProgressLine, say, watch_compilation
from tests.pseudo_terminal import on_terminal

NOW = 1000.0


class Clock:
    """A clock that stands still until a test moves it."""

    now = NOW

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def written(capsys):
    """What was written to standard error, which is a file here."""

    class Written:
        text = ""

        def getvalue(self):
            self.text += capsys.readouterr().err
            return self.text

    return Written()


def test_a_file_has_the_first_state_the_last_one_and_one_line_every_30_seconds(clock, written):
    with ProgressLine(total=100, desc="working", unit="parts", delay=0) as line:
        for _ in range(90):
            clock.now += 1
            line.update()
    lines = written.getvalue().splitlines()
    assert lines[0] == "working 0%, 0/100 parts, 00:00 spent"
    assert lines[1] == "working 30%, 30/100 parts, 1.0 parts/s, 01:10 left, 00:30 spent"
    assert lines[-1] == "working 90%, 90/100 parts, 1.0 parts/s, 01:30 spent"
    assert len(lines) == 1 + 90 // FILE_SECONDS + 1
    assert written.getvalue().endswith("\n")
    assert "\r" not in written.getvalue()


def test_a_file_has_lines_also_while_nothing_moves(clock, written):
    """The thread writes them: this test only moves the clock."""
    with ProgressLine(total=2, desc="waiting", unit="parts", delay=0):
        clock.now += FILE_SECONDS
        wait_for(lambda: written.getvalue().count("\n") == 2)
    assert written.getvalue().splitlines()[1] == "waiting 0%, 0/2 parts, 00:30 spent"


def wait_for(condition):
    """Waits generously until a thread has made a condition true."""
    for _ in range(1200):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("the condition did not become true")


def test_short_work_says_nothing_and_what_is_off_never_does(clock, written):
    assert list(ProgressLine("abc", desc="short", unit="letters")) == ["a", "b", "c"]
    with ProgressLine(total=3, desc="off", unit="parts", delay=0, disable=True) as line:
        clock.now += 100
        line.update()
    assert written.getvalue() == ""


def test_nested_lines_and_messages_in_a_file_are_lines_of_their_own(clock, written):
    with ProgressLine(total=1, desc="outer", unit="parts", delay=0) as outer:
        with ProgressLine(total=1, desc="inner", unit="parts", delay=0, leave=False) as inner:
            say("a message")
            inner.update()
        outer.update()
    names = [line.split(" ")[0] for line in written.getvalue().splitlines()]
    assert names == ["outer", "inner", "a", "inner", "outer"]


def test_the_first_piece_does_not_count_for_the_rate_because_it_is_compiled(clock, written):
    line = ProgressLine(total=1000, desc="training", unit="steps", initial=100, delay=0)
    clock.now += 60
    line.update()
    assert "left" not in line.text(clock.now, width=80)
    clock.now += 10
    line.update(20)
    assert line.text(clock.now, width=80) == "training 12%, 121/1,000 steps, 2.0 steps/s, 07:19 left, 01:10 spent"
    line.close()
    line.close()  # a second call does nothing


PLACE = Place(number=6, total=11, started=NOW - 60, later=300.0, same=1, unknown=1)


@pytest.mark.parametrize(
    "name", ["training", "training of an encoder with a very long name", "读取数据读取数据读取数据读取"]
)
@pytest.mark.parametrize("place", [None, PLACE])
def test_the_line_fits_every_width(clock, written, monkeypatch, name, place):
    monkeypatch.setattr(progress, "_place", lambda: place)
    with ProgressLine(total=2_345_678, desc=name, unit="documents", delay=0) as line:
        line.show(loss="1.2345", accuracy="0.9876")
        for _ in range(3):
            clock.now += 1
            line.update(123_456)
        texts = [line.text(clock.now, width=width, state="compiling") for width in range(1, 201)]
    assert all(disp_len(text) <= width for width, text in enumerate(texts, start=1))
    assert name[:8] in texts[79]
    assert "compiling" in texts[79]
    assert "left" in texts[79]
    assert max(disp_len(line) for line in written.getvalue().splitlines()) <= 80
    assert "370k/2.35M documents" in texts[-1]
    assert "loss 1.2345" in texts[-1]


def test_in_a_chain_the_line_has_its_step_and_the_time_of_the_whole_chain(clock, written, monkeypatch):
    monkeypatch.setattr(progress, "_place", lambda: PLACE)
    monkeypatch.setattr("crops_jax.program.place.time", type("", (), {"time": lambda: NOW + 30}))
    with ProgressLine(total=3501, desc="training", unit="steps", delay=0) as line:
        line.update()
        clock.now += 10
        line.update(100)
        # 340 s of this step, 300 s of later ones, and a later one that takes 90 + 340 s as this one does.
        assert line.text(clock.now, width=79) == (
            "[6/11] training 2%, 101/3,501 steps, 05:40 left, chain over 17:50 left"
        )


def test_the_time_of_a_chain_is_not_less_than_an_earlier_step_of_the_same_program_took():
    place = Place(number=2, total=3, started=NOW, expected=100.0, later=50.0)
    assert place.left(1.0, now=NOW + 30) == 70 + 50
    assert place.left(90.0, now=NOW + 30) == 90 + 50
    assert place_in_chain(place.environment()) == place
    assert place_in_chain({}) is None


def test_the_line_says_compiling_while_jax_compiles():
    watch_compilation()
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: seen.append((event.rpartition("/")[2], progress._Compilation.state()))
    )
    jax.jit(lambda x: jnp.tanh(x) * 3 + 1)(jnp.ones(7)).block_until_ready()
    assert ("jaxpr_to_mlir_module_duration", "compiling") in seen
    assert seen[-1] == ("backend_compile_duration", "")


ON_A_TERMINAL = """
import sys
from crops_jax.program.progress import ProgressLine, say
with ProgressLine(total=400, desc="outer work with a rather long name", unit="documents", delay=0) as outer:
    for part in range(4):
        say(f"part {part}")
        for _ in ProgressLine(range(100), desc="inner work", unit="pieces", delay=0, leave=False):
            outer.update()
            outer.show(loss="0.1234", accuracy="0.9876")
say("the end")
"""


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_on_a_terminal_there_is_one_line_that_is_drawn_in_place(columns):
    session = on_terminal([sys.executable, "-c", ON_A_TERMINAL], columns=columns)
    assert session.status == 0
    assert max(map(len, session.states)) < min(columns, 80)
    assert any(state.startswith("inner work") for state in session.states)
    outer = session.lines[-3]
    assert outer.startswith("outer work with a rather long na")
    assert "100%" in outer
    assert session.lines == ["part 0", "part 1", "part 2", "part 3", outer, "the end", ""]


def test_an_error_below_a_line_leaves_the_last_state_above_it():
    code = "from crops_jax.program.progress import ProgressLine\n"
    code += "with ProgressLine(total=2, desc='work', unit='parts', delay=0) as line:\n    line.update()\n    1 / 0\n"
    lines = on_terminal([sys.executable, "-c", code], environment={"PYTHON_COLORS": "0"}).lines
    assert lines[0].startswith("work 50%")
    assert lines[1].startswith("Traceback")
    assert "ZeroDivisionError: division by zero" in lines
