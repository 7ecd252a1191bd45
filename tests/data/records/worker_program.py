"""A program that is stopped while its worker processes work."""

from dataclasses import dataclass
from typing import Any

from crops_jax import program
from data.records.worker_processes import worker_processes
from tests.data.records.worker_tasks import answer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    pass


def wait_for_ever(arguments: Arguments) -> dict[str, Any]:
    """Two workers wait."""
    with worker_processes(answer, workers=2) as mapped:
        return {"answers": list(mapped(["wait", "wait"]))}


if __name__ == "__main__":
    program.run(wait_for_ever, example="python -m tests.data.records.worker_program")
