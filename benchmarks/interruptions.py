"""Measures how soon each program ends after SIGTERM, and whether the same command then finishes its work.

    python benchmarks/interruptions.py --work demo/work --moments 4

WORK is a finished folder of launch.pipeline, such as that of `make demo`. Each program of its steps runs again with an
output of its own, and so do programs that a pipeline does not call. First a program runs to its end. Then it is
interrupted at moments that divide this time evenly, each time with a new output, and the command of the last moment is
called again. The aim is 30 s, which a preempted machine of a cloud has.

The program prints one line of JSON: for each program the seconds of a whole run, the greatest number of seconds from
SIGTERM to its end, the exit statuses of the interrupted calls (0: it ended before the signal), and that of the call
after the last of them. A traceback in the messages of a program ends the benchmark.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.interleaved import ROOT
from crops_jax.devices.processor import processor
from crops_jax.program.chain import STEPS, read_steps

AIM_SECONDS = 30
_PATIENCE_SECONDS = 900
"""The time in seconds after which a program that does not end is killed, and the benchmark ends."""


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
    found["launch.train_discriminator"] = ["launch.train_discriminator", "--logs", logs]
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


def end(process: subprocess.Popen[str], what: str) -> int:
    """Returns the exit status of a process. Ends this program if it hangs, or if it printed a traceback."""
    try:
        _, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise SystemExit(f"{what} did not end within {_PATIENCE_SECONDS} s") from None
    if "Traceback" in errors:
        raise SystemExit(f"{what} ended with status {process.returncode} and a traceback:\n{errors[-4000:]}")
    return process.returncode


def measure(name: str, arguments: Sequence[str], *, moments: int, folder: Path) -> dict[str, Any]:
    """Returns the figures of one program."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    before = time.perf_counter()
    status = end(start(arguments, folder / "whole", environment), name)
    whole = time.perf_counter() - before
    if status:
        raise SystemExit(f"{name} ended with status {status} without an interruption")
    statuses, seconds, output = [], [], folder / "whole"
    for number in range(1, moments + 1):
        _remove(output)
        output = folder / f"interrupted_{number}"
        process = start(arguments, output, environment)
        time.sleep(whole * number / (moments + 1))
        process.send_signal(signal.SIGTERM)
        before = time.perf_counter()
        statuses.append(end(process, f"{name} after SIGTERM"))
        seconds.append(time.perf_counter() - before)
    again = end(start(arguments, output, environment), f"{name} once more") if statuses[-1] else None
    _remove(output)
    return {
        "program": name,
        "whole_seconds": round(whole, 1),
        "most_seconds_to_end": round(max(seconds), 2),
        "statuses": statuses,
        "status_of_the_next_call": again,
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
    measured = []
    for name, command in commands(arguments.work).items():
        if not arguments.programs or name in arguments.programs:
            with tempfile.TemporaryDirectory() as folder:
                measured.append(measure(name, command, moments=arguments.moments, folder=Path(folder)))
            print(json.dumps(measured[-1]), file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "benchmark": "interruptions",
                "processor": processor(),
                "cpus": os.cpu_count(),
                "aim_seconds": AIM_SECONDS,
                "programs": measured,
            }
        )
    )


if __name__ == "__main__":
    main()
