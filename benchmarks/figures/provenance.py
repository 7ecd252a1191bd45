"""Where a result comes from: the machine and the code that measured it, found here and described on a page."""

import datetime
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures.results import FiguresError, Machine, Result
from benchmarks.interleaved import ROOT
from crops_jax.devices.processor import processor

PACKAGES = (
    "jax",
    "flax",
    "optax",
    "grain",
    "numpy",
    "duckdb",
    "ibis-framework",
    "bm25s",
    "scann",
    "transformers",
    "libtpu",
)
_CODE = ("crops_jax", "configs", "data", "launch")


def measured_here(*, note: str) -> dict[str, Any]:
    """The fields machine, date, commit and packages of a Result that was measured on this machine today."""
    return {
        "machine": Machine(processor=processor(), cores=os.cpu_count() or 1, device=_device(), note=note),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "packages": {"python": ".".join(map(str, sys.version_info[:3])), **_versions()},
    }


def described(result: Result, *, with_commands: bool = True) -> str:
    """The provenance of a result as Markdown: one paragraph, its remarks, and its commands as a block of code."""
    machine = result.machine
    packages = ", ".join(f"{name} {version}" for name, version in result.packages.items())
    commit, changed = result.commit.partition("+")[::2]
    sentences = [
        f"Measurement: {result.title}. It was made on {result.date} at commit `{commit[:7]}`"
        f"{' with local changes' if changed else ''} on {machine.cores} cores ({machine.processor}; device "
        f"{machine.device}).",
        machine.note,
        f"The values were recorded {result.recorded}.",
        f"The packages were {packages}.",
    ]
    parts = [" ".join(filter(None, sentences)), *result.remarks]
    if result.commands and with_commands:
        parts.append("\n".join(f"    {command}" for command in result.commands))
    elif not result.commands:
        parts.append("The command of this measurement was not recorded.")
    return "\n\n".join(parts)


def _device() -> str:
    if not (os.environ.get("JAX_PLATFORMS") or Path("/dev/nvidia0").exists() or list(Path("/dev").glob("accel*"))):
        os.environ["JAX_PLATFORMS"] = "cpu"  # libtpu without a TPU would print warnings
    import jax

    return jax.devices()[0].device_kind


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--", *_CODE) else commit
    except (OSError, subprocess.CalledProcessError) as error:
        raise FiguresError(f"{ROOT}: Git does not name its commit ({error}); store results from a clone") from error


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
