"""When, on which devices and from which commit a process trains: the facts of a run that are not in its manifest."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import crops_jax
from crops_jax.devices import processes
from crops_jax.devices.processor import processor

_LIMIT_SECONDS = 10


class Device(Protocol):
    """The part of a jax.Device that is read here."""

    device_kind: str


def provenance(devices: Iterable[Device]) -> dict[str, Any]:
    """Returns the fields of a run's start in goodput.jsonl.

    Args:
      devices: the devices of all processes.

    Returns:
      A dictionary with "time" (ISO 8601, UTC), "devices" (such as "8 x TPU v5 lite"; a CPU is named after its model),
      "processes" (their number) and "commit" (see `source_commit`).
    """
    kinds = Counter(device.device_kind for device in devices)
    words = [f"{count} x {f'cpu ({processor()})' if kind == 'cpu' else kind}" for kind, count in kinds.items()]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "devices": ", ".join(words),
        "processes": processes.current().count,
        "commit": source_commit(Path(crops_jax.__file__).parents[1]),
    }


def process_age() -> float | None:
    """Returns the seconds since this process was started, before Python was loaded; None where /proc does not tell."""
    try:
        # The fields after the name of the program, which stands in brackets and can have spaces in it.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None


def source_commit(root: Path) -> str | None:
    """Returns the first 12 digits of the commit of a clone; "with changes" follows them where tracked files differ.

    Returns None where `root` is not the root of a Git clone, as for an installed wheel, and where Git is absent.
    """
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if head is None else f"{head} with changes" if changed else head


def _git(root: Path, *arguments: str) -> str | None:
    """Returns what Git prints, or None where it fails."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
