import multiprocessing
import signal
import subprocess
import sys

import pytest

from crops_jax.errors import InputError, NamedFailure, is_full_disk
from data.records.worker_processes import usable_cores, worker_processes
from tests.data.records.worker_tasks import answer
from tests.paths import ROOT


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks_which_are_not_all_taken_at_once(workers):
    tasks = [f"{number} " * (1 + 20_000 * (number % 3)) for number in range(60)]
    taken = []
    with worker_processes(answer, workers=workers) as mapped:
        results = mapped(taken.append(task) or task for task in tasks)
        assert next(results) == tasks[0]
        assert len(taken) <= 4 * workers
        assert list(results) == tasks[1:]
        assert list(mapped([])) == []
        assert list(mapped(["again"])) == ["again"]
    assert not multiprocessing.active_children()


def test_what_a_worker_raises_is_raised_here_and_the_workers_are_gone():
    with pytest.raises(InputError, match=r"^row 7 is wrong$"), worker_processes(answer, workers=2) as mapped:
        list(mapped(["a", "refuse", "b"]))
    with pytest.raises(OSError, match="No space left") as full, worker_processes(answer, workers=2) as mapped:
        list(mapped(["full disk"]))
    assert is_full_disk(full.value)
    with pytest.raises(RuntimeError, match=r"(?s)in a worker process.*worker_tasks\.py.*KeyError: 'a defect'"):
        with worker_processes(answer, workers=2) as mapped:
            list(mapped(["defect"]))
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_one_clear_failure():
    with pytest.raises(NamedFailure, match=r"a worker process was killed by signal 9 .* fewer --workers"):
        with worker_processes(answer, workers=2) as mapped:
            list(mapped(["a", "killed", *"bcdefgh"]))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 3), (signal.SIGINT, 3), (signal.SIGKILL, -9)])
def test_workers_end_with_their_parent(sent, status):
    command = [sys.executable, "-m", "tests.data.records.worker_program"]

    def takes_signals() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job inherits that it is ignored

    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=takes_signals) as parent:
        assert parent.stderr is not None
        assert [parent.stderr.readline() for _ in range(2)] == ["at work\n"] * 2
        parent.send_signal(sent)
        # The workers hold this pipe too: it ends when all of them have ended.
        said = parent.stderr.read()
    assert parent.returncode == status
    assert "Traceback" not in said


def test_there_is_a_core_to_use():
    assert usable_cores() >= 1
