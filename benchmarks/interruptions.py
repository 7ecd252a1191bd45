"""Measures how soon each program ends after SIGTERM, and whether the same command then finishes its work.

    python benchmarks/interruptions.py --work demo/work --moments 4

WORK is a finished folder of launch.pipeline, such as that of `make demo`. Each program of its steps runs again with an
output of its own, and so do programs that a pipeline does not call. First a program runs to its end. Then it is
interrupted at moments that divide this time evenly, each time with a new output, and the command of the last moment is
called again. The aim is 30 s, which a preempted machine of a cloud has.

The benchmark prints one line of JSON: for each program the seconds of a whole run, the greatest number of seconds from
SIGTERM to its end, the exit statuses of the interrupted calls (0: it ended before the signal), and that of the call
after the last of them, if that was interrupted. A program that fails stands under "failed", with the call, its status
and its last messages; the others are measured all the same, and the exit status is 4. A program fails when it prints a
traceback, does not end, or ends with another status than 0, or than 3 and -15 after SIGTERM. -15 means that the signal
came in the first moment of the program, or in its last one, after its outcome.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.interleaved import ROOT
from crops_jax.devices.processor import processor
from crops_jax.errors import Interrupted, NamedFailure
from crops_jax.program.chain import STEPS, read_steps

AIM_SECONDS = 30
_PATIENCE_SECONDS = 900
"""The time in seconds after which a program that does not end is killed, and counts as failed."""
_AFTER_SIGTERM = {0, Interrupted.status, -signal.SIGTERM}
"""The exit statuses that a program may have after SIGTERM."""
_LAST_LINES = 5
"""The number of the last messages of a program that failed that the outcome has."""
_SMALL_DISCRIMINATOR = (
    *("--layers", "2", "--width", "64", "--heads", "4", "--feed-forward-width", "256", "--vocabulary-size", "4000"),
    *("--max-tokens", "32", "--max-pairs", "8000", "--epochs", "1"),
)
"""The sizes of a cross-encoder whose training needs far less than 2 GB of memory."""


class Failed(Exception):
    """A program failed.

    Attributes:
      call: which of its calls it was, as a text.
      status: its exit status; negative: the number of the signal that ended it. None: it did not end in time.
      messages: its last lines of standard error.
    """

    def __init__(self, call: str, status: int | None, errors: str):
        super().__init__(call)
        self.call, self.status, self.messages = call, status, errors.splitlines()[-_LAST_LINES:]


def commands(work: Path) -> dict[str, list[str]]:
    """Returns the arguments of each program, without --output, by a name that says which one it is.

    Of the steps of a pipeline that run the same program, the last one counts.
    """
    found: dict[str, list[str]] = {}
    for step in read_steps(work / STEPS).values():
        _, _, module, *arguments = step["step"]["command"]
        place = arguments.index("--output")
        found[module] = [module, *arguments[:place], *arguments[place + 2 :]]
    split, labels = str(work / "split"), str(work / "cross_perspective" / "labels")
    run, logs = str(work / "cross_perspective" / "run"), found["data.hold_out"][2]
    found["data.mine --backend pyspark"] = [*found["data.mine"], "--backend", "pyspark"]
    found["data.report"] = ["data.report", "--labels", labels, "--logs", split]
    found["data.simulate"] = ["data.simulate"]
    found["launch.train_discriminator"] = ["launch.train_discriminator", "--logs", logs, *_SMALL_DISCRIMINATOR]
    found["launch.report"] = ["launch.report", str(work)]
    found["launch.mine_negatives"] = ["launch.mine_negatives", "--labels", labels, "--logs", split]
    found["launch.mine_negatives"] += ["--ranked-by", "bm25", "--level", "1"]
    found["launch.export"] = ["launch.export", "--run", run]
    return found


def start(arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments, "--output", str(output)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], call: str, *, expected: Collection[int]) -> int:
    """Returns the exit status of a process. Raises Failed for another one, for a traceback, and if it hangs."""
    try:
        _, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as late:
        process.kill()
        raise Failed(call, None, (late.stderr or b"").decode(errors="replace")) from None
    if process.returncode not in expected or "Traceback" in errors:
        raise Failed(call, process.returncode, errors)
    return process.returncode


def measure(name: str, arguments: Sequence[str], *, moments: int, folder: Path) -> dict[str, Any]:
    """Returns the figures of one program. Raises Failed."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    before = time.perf_counter()
    end(start(arguments, folder / "whole", environment), "without an interruption", expected={0})
    whole = time.perf_counter() - before
    statuses, seconds, output = [], [], folder / "whole"
    for number in range(1, moments + 1):
        _remove(output)
        output = folder / f"interrupted_{number}"
        process = start(arguments, output, environment)
        time.sleep(whole * number / (moments + 1))
        process.send_signal(signal.SIGTERM)
        before = time.perf_counter()
        statuses.append(end(process, "after SIGTERM", expected=_AFTER_SIGTERM))
        seconds.append(time.perf_counter() - before)
    again = None
    if statuses[-1] == Interrupted.status:
        again = end(start(arguments, output, environment), "after an interruption", expected={0})
    _remove(output)
    return {
        "program": name,
        "whole_seconds": round(whole, 1),
        "most_seconds_to_end": round(max(seconds), 2),
        "statuses": statuses,
        "status_of_the_next_call": again,
    }


def measure_all(programs: Mapping[str, Sequence[str]], *, moments: int) -> dict[str, Any]:
    """Returns the outcome: the figures of the programs that can be measured, and those that failed."""
    measured, failed = [], []
    for name, arguments in programs.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                measured.append(measure(name, arguments, moments=moments, folder=Path(folder)))
                found = measured[-1]
            except Failed as failure:
                failed.append({"program": name, **vars(failure)})
                found = failed[-1]
        print(json.dumps(found), file=sys.stderr, flush=True)
    return {
        "benchmark": "interruptions",
        "processor": processor(),
        "cpus": os.cpu_count(),
        "aim_seconds": AIM_SECONDS,
        "programs": measured,
        "failed": failed,
    }


def _remove(output: Path) -> None:
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a finished folder of launch.pipeline")
    parser.add_argument("--moments", type=int, default=4, help="the interruptions of each program")
    parser.add_argument("--programs", nargs="*", help="only these; all by default")
    arguments = parser.parse_args()
    programs = commands(arguments.work)
    if unknown := sorted(set(arguments.programs or ()) - programs.keys()):
        parser.error(f"--programs {unknown[0]}: known are {', '.join(programs)}")
    wanted = {name: programs[name] for name in arguments.programs or programs}
    outcome = measure_all(wanted, moments=arguments.moments)
    print(json.dumps(outcome))
    if outcome["failed"]:
        raise SystemExit(NamedFailure.status)


if __name__ == "__main__":
    main()
