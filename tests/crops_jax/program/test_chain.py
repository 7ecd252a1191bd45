"""A chain of small programs: what is done is not done again, and every exit status comes through."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.program import chain
from crops_jax.program.chain import Chain, Step, read_steps
from crops_jax.program.place import Place
from tests.paths import ROOT
from tests.pseudo_terminal import CTRL_C, on_terminal

COPY = """
import json, pathlib, sys
source, output = sys.argv[1:3]
with open("calls.txt", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
pathlib.Path(output).write_text(pathlib.Path(source).read_text().upper())
print("for people", file=sys.stderr)
print(json.dumps({"copied": output}))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "copying.py").write_text(COPY)
    (tmp_path / "ending.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("text")
    (tmp_path / "work").mkdir()
    return tmp_path


def copy(source, output, name=None):
    return Step(
        name=name or output, module="copying", arguments=(source, output), inputs=(Path(source),), output=Path(output)
    )


def run_all():
    chain = Chain(Path("work"), total=2)
    return [chain.run(copy("a", "b")), chain.run(copy("b", "c"))]


def calls():
    return Path("calls.txt").read_text().splitlines()


def test_a_chain_runs_once_and_remembers_its_outcomes(here):
    assert run_all() == [{"copied": "b"}, {"copied": "c"}]
    assert run_all() == [{"copied": "b"}, {"copied": "c"}]
    assert calls() == ["a b", "b c"]


def test_the_steps_keep_their_seconds_when_they_are_not_run_again(here):
    run_all()
    first = read_steps(Path("work/steps.json"))
    assert list(first) == ["b", "c"]
    assert all(entry["seconds"] >= 0 for entry in first.values())
    run_all()
    assert read_steps(Path("work/steps.json")) == first
    assert read_steps(Path("work/no-steps.json")) == {}


def test_a_changed_input_or_a_lost_output_is_made_again_and_what_follows_too(here):
    run_all()
    Path("a").write_text("other")
    run_all()
    assert Path("c").read_text() == "OTHER"
    assert calls()[2:] == ["a b --overwrite", "b c --overwrite"]
    Path("c").unlink()
    run_all()
    assert calls()[4:] == ["b c"]


@pytest.mark.parametrize(("status", "error"), [(2, InputError), (3, Interrupted), (4, NamedFailure), (7, RuntimeError)])
def test_exit_statuses_come_through(here, status, error):
    step = Step(name="end", module="ending", arguments=(str(status),), inputs=(), output=Path("nothing"))
    with pytest.raises(error, match="end"):
        Chain(Path("work"), total=1).run(step)
    assert not Path("work/steps.json").exists()


WAITING = """
import os, pathlib, signal, sys
def stop(*_):
    pathlib.Path("stopped").write_text("yes")
    os._exit(3)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("started.part").write_text(str(os.getpid()))
os.rename("started.part", "started")
while True:
    signal.pause()
"""

CHAIN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from crops_jax.program import chain
from crops_jax.program.chain import Chain, Step, read_steps
from crops_jax.errors import Interrupted
try:
    Chain(Path("work"), total=1).run(Step(name="w", module="waiting", arguments=(), inputs=(), output=Path("x")))
except Interrupted:
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(
            signal.SIGKILL,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent death signal"),
        ),
    ],
)
def test_a_step_ends_with_its_chain(here, number):
    (here / "waiting.py").write_text(WAITING)
    chain = subprocess.Popen([sys.executable, "-c", CHAIN])
    wait_for(here / "started", chain)
    os.kill(chain.pid, number)
    assert chain.wait(timeout=120) == (3 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(here / "stopped")


def test_the_chain_says_how_much_time_is_left_as_far_as_programs_were_measured(here, capfd):
    planned = [copy("a", "b"), copy("b", "c"), Step(name="d", module="x", arguments=(), inputs=(), output=Path("d"))]

    def headings(steps):
        chain = Chain(Path("work"), planned=planned)
        for step in steps:
            chain.run(step)
        said = re.sub(r"\d\d:\d\d spent", "spent", capfd.readouterr().err)
        return [line for line in said.splitlines() if line.startswith("[")]

    assert headings(planned[:1]) == ["[1/3] b"]
    memory = json.loads(Path("work/steps.json").read_text())
    assert memory["b"]["seconds"] < 120
    memory["b"]["seconds"] = 100
    Path("work/steps.json").write_text(json.dumps(memory))
    assert headings(planned[:2]) == ["[1/3] b: is already done", "[2/3] c (spent, over 01:40 left)"]
    memory = json.loads(Path("work/steps.json").read_text())
    memory["b"]["seconds"] = memory["c"]["seconds"] = 100
    memory["d"] = {"step": {}, "output": None, "outcome": {}, "seconds": 3600}
    Path("work/steps.json").write_text(json.dumps(memory))
    Path("a").write_text("other")
    assert headings(planned[:1]) == ["[1/3] b (about 1:03:20 left)"]


def test_a_program_of_a_chain_knows_its_place(here):
    (here / "placed.py").write_text("import os\nprint(os.environ['CROPS_JAX_STEP'])\n")
    steps = [Step(name=name, module="placed", arguments=(), inputs=(), output=Path(name)) for name in "ab"]
    chain = Chain(Path("work"), planned=steps)
    first, second = (Place(**chain.run(step)) for step in steps)
    assert (first.label, first.expected, first.same, first.unknown) == ("[1/2]", None, 1, 0)
    assert (second.label, second.later, second.same, second.unknown) == ("[2/2]", 0, 0, 0)
    assert second.expected is not None
    assert second.started >= first.started


PROGRAM = """
import dataclasses, signal, sys, threading
from pathlib import Path
sys.path.insert(0, {root!r})
from crops_jax import errors, program
from crops_jax.errors import Interrupted
from crops_jax.program import chain
from crops_jax.program.chain import Chain, Step

@dataclasses.dataclass(frozen=True)
class Arguments:
    output: str = "x"

def work(arguments: Arguments) -> dict:
    \"\"\"Works.\"\"\"
    {work}
    return {{}}
"""
CHILD = PROGRAM.format(
    root=str(ROOT), work="print('working', file=sys.stderr, flush=True)\n    while True:\n        signal.pause()"
)
CHILD_THAT_IMPORTS = (
    PROGRAM.format(root=str(ROOT), work="pass")
    + """
errors.end_at_once_on_signals()
print('working', file=sys.stderr, flush=True)
while True:
    signal.pause()
"""
)
CHILD_THAT_GOES_ON = PROGRAM.format(
    root=str(ROOT),
    work="stopped = threading.Event()\n    signal.signal(signal.SIGTERM, lambda *_: stopped.set())\n"
    "    print('working', file=sys.stderr, flush=True)\n    stopped.wait()",
)
PARENT = PROGRAM.format(
    root=str(ROOT),
    work="Chain(Path('work'), total=2).run("
    "Step(name='wait', module='waiting', arguments=(), inputs=(), output=Path('x')))",
)
RUN = "\nprogram.run(work, example='')\n"


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (CHILD, "error: step 'wait': the program was terminated; nothing half-written is kept; call the same"),
        (CHILD_THAT_IMPORTS, "error: step 'wait': interrupted; call the same command again to go on"),
        (CHILD_THAT_GOES_ON, "error: interrupted after step 'wait'; call the same command again to go on"),
    ],
    ids=["working", "importing", "done in spite of it"],
)
def test_ctrl_c_reaches_parent_and_child_and_is_reported_once(here, child, message):
    (here / "waiting.py").write_text(child + RUN)
    (here / "parent.py").write_text(PARENT + RUN)
    session = on_terminal([sys.executable, "parent.py"], answers={"working": CTRL_C}, folder=here)
    assert session.status == 3
    assert session.written.count("error:") == 1, session.written
    assert message in session.written
    assert "Traceback" not in session.written


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_chain_alone_is_passed_on_and_reported_once(here, number):
    (here / "waiting.py").write_text(CHILD + RUN)
    (here / "parent.py").write_text(PARENT + RUN)
    chain = subprocess.Popen(
        [sys.executable, "parent.py"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job inherits that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    lines = [line for line in iter(chain.stderr.readline, "working\n") if line]
    os.kill(chain.pid, number)
    out, err = chain.communicate(timeout=240)
    assert chain.returncode == 3
    assert out == ""
    assert err.count("error:") == 1
    assert "\r" not in "".join(lines) + err


def wait_for(file, process=None):
    """Waits until `file` is there, generously, and fails when `process` ends before."""
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not appear"
        assert process is None or process.poll() is None, "the chain ended early"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"copy": 1}', '{"copy": {"step": {}, "output": null}}', '{"copy": {"outcome": []}}']
)
def test_a_broken_memory_is_named(here, content):
    Path("work/steps.json").write_text(content)
    with pytest.raises(InputError, match=r"steps\.json.*remove it to run every step again"):
        Chain(Path("work"), total=1)


def test_an_empty_memory_runs_every_step(here):
    Path("work/steps.json").write_text(json.dumps({}))
    assert run_all()[1] == {"copied": "c"}


def test_a_launcher_that_is_not_there_is_refused(here, capfd):
    step = Step(name="w", module="m", arguments=(), inputs=(), output=Path("x"), launcher=("nowhere/python", "w.py"))
    with pytest.raises(InputError, match="step 'w' was refused; see its message above"):
        Chain(Path("work"), total=1).run(step)
    assert "error: nowhere/python: No such file or directory" in capfd.readouterr().err


FORKING = f"""
import os
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from crops_jax.program import chain
from crops_jax.program.chain import Chain, Step
os.register_at_fork(before=lambda: Path("forked").touch())
Chain(Path("work"), total=1).run(Step(name="b", module="copying", arguments=("a", "b"), inputs=(), output=Path("b")))
"""


def test_a_chain_runs_no_python_in_a_fork_of_itself(here):
    """JAX warns before a fork of a process with threads, because Python code in it can wait forever."""
    subprocess.run([sys.executable, "-c", FORKING], check=True)
    assert Path("b").read_text() == "TEXT"
    assert not Path("forked").exists()


@pytest.mark.parametrize("parent", [-1, 0])
def test_a_step_whose_chain_has_ended_already_is_not_run(here, parent):
    """The process that started it is another one than the chain, as when the chain died in between."""
    ended = subprocess.run([*chain._CHILD, str(parent), "touch", "ran"])
    assert ended.returncode == -signal.SIGTERM
    assert not Path("ran").exists()


def test_a_launcher_stands_before_the_arguments(here):
    launcher = (sys.executable, "copying.py")
    step = Step(name="copy", module="", launcher=launcher, arguments=("a", "b"), inputs=(Path("a"),), output=Path("b"))
    assert step.command == [*launcher, "a", "b"]
    assert Chain(Path("work"), total=1).run(step) == {"copied": "b"}
    assert Path("b").read_text() == "TEXT"
