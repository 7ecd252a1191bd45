"""The time of a step in each process of a run, so that a slow process can be told from a slow cluster.

Each process leaves its times at the coordination service when it logs, and the first one reads what is there. Nothing
waits, so that the times of another process can be those of its line before.
"""

import statistics
from collections.abc import Mapping

from crops_jax.devices.processes import Processes

PARTS = ("step", "input_wait")
"""The times of a step: all of it, and the wait for its batch."""
_NAME = "step_times"


def gathered_times(cluster: Processes, spent: Mapping[str, float], *, steps: int) -> dict[str, float | int]:
    """Returns the fields of a line of goodput.jsonl about all processes.

    These are, for each of PARTS, the least, the median and the greatest seconds a step, and the process of the
    greatest: step_seconds_min, step_seconds_median, step_seconds_max, step_seconds_process, and so on. All processes
    of a step wait for one another, so that their steps take as long; a process that holds the others up has the longest
    input wait.

    Args:
      cluster: the processes of the run; each of them must call this.
      spent: what crops_jax.runs.log.Stopwatch.read returned.
      steps: the number of steps in that time.
    """
    own = {"step": spent["seconds"] / steps, "input_wait": spent["input_wait_seconds"] / steps}
    cluster.publish(_NAME, own)
    times = {cluster.index: own, **(cluster.published(_NAME) if cluster.is_first else {})}
    fields: dict[str, float | int] = {}
    for part in PARTS:
        seconds = {process: of_process[part] for process, of_process in times.items()}
        values = list(seconds.values())
        limits = {"min": min(values), "median": statistics.median(values), "max": max(values)}
        fields |= {f"{part}_seconds_{name}": round(value, 5) for name, value in limits.items()}
        fields[f"{part}_seconds_process"] = max(seconds, key=lambda process: seconds[process])
    return fields


def newest_times(lines: list[dict]) -> dict[str, float | int | None]:
    """Returns the fields of `gathered_times` in the last line of goodput.jsonl that has them; None for each without."""
    names = [f"{part}_seconds_{name}" for part in PARTS for name in ("min", "median", "max", "process")]
    newest = next((line for line in reversed(lines) if names[0] in line), {})
    return {name: newest.get(name) for name in names}
