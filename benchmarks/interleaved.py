"""Measures systems in turn, A B A B ... Each system has a process of its own that stays alive between its turns."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
REPRESENTAX_PYTHON = ROOT / ".venv-representax" / "bin" / "python"
# MKL calls this function, and uses slower kernels if the processor is not from Intel.
_UNLOCK = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
_KEEP_MEMORY = """
import runpy, sys
from crops_jax.devices.process_memory import keep_freed_memory
keep_freed_memory()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, kw_only=True)
class System:
    """The command that starts the process of a system. The process calls `serve`."""

    python: Path
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def serve(work: Callable[[], Mapping[str, Any]]) -> None:
    """Answers each line of standard input with the seconds of one call of `work` and its result."""
    for _ in sys.stdin:
        start = time.perf_counter()
        result = work()
        print(json.dumps({"seconds": time.perf_counter() - start, **result}), flush=True)


def alternate(systems: Mapping[str, System], *, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the answers of each system, one for each round. A first round, in which programs compile, is omitted."""
    processes = {
        name: subprocess.Popen(
            [system.python, *system.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **system.environment},
        )
        for name, system in systems.items()
    }
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for turn in range(rounds + 1):
        for name, process in processes.items():
            print("go", file=process.stdin, flush=True)
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{name} ended with status {process.wait()}; its message is above")
            if turn:
                answers[name].append(json.loads(line))
            print(f"{name}: {json.loads(line)['seconds']:.2f} s", file=sys.stderr)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return answers


def medians(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Returns the median seconds of each system."""
    return {name: statistics.median(answer["seconds"] for answer in turns) for name, turns in answers.items()}


def with_torch_unlocked(systems: Mapping[str, System], name: str, folder: Path) -> dict[str, System]:
    """Returns `systems` and, if possible, `name` again with a matrix library that uses all features of the processor.

    PyTorch's MKL runs at half speed on AMD processors. The variant needs a C compiler and Linux on x86-64, and no GPU.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if name not in systems or not compiler or sys.platform != "linux" or platform.machine() != "x86_64":
        return dict(systems)
    if _peer_check("torch.cuda.is_available()"):
        return dict(systems)
    source, library = folder / "unlock.c", folder / "unlock.so"
    source.write_text(_UNLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    system = systems[name]
    unlocked = System(
        python=system.python,
        command=system.command,
        environment={**system.environment, "LD_PRELOAD": str(library)},
    )
    return {**systems, f"{name}_unlocked": unlocked}


def peer_systems(script: str, flags: Sequence[str]) -> dict[str, System]:
    """Returns the sentence-transformers systems that `script --serve=NAME` measures; none without .venv-peers.

    On a CPU the only system is sentence-transformers as installed. On a GPU it is padded, and a second system without
    padding uses FlashAttention 2, if that is installed. NAME is the name of the system.
    """
    if not PEER_PYTHON.exists():
        return {}
    names = ["sentence_transformers"]
    if _peer_check("torch.cuda.is_available() and importlib.util.find_spec('flash_attn') is not None"):
        names.append("sentence_transformers_unpadded")
    return {name: System(python=PEER_PYTHON, command=[script, f"--serve={name}", *flags]) for name in names}


def representax_systems(script: str, flags: Sequence[str]) -> dict[str, System]:
    """Returns the system `script --serve=representax`; none without .venv-representax."""
    if not REPRESENTAX_PYTHON.exists():
        return {}
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TRANSFORMERS_VERBOSITY": "error"}
    command = [script, "--serve=representax", *flags]
    return {"representax": System(python=REPRESENTAX_PYTHON, command=command, environment=environment)}


def _peer_check(condition: str) -> bool:
    command = [PEER_PYTHON, "-c", f"import importlib.util, torch; print({condition})"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"


def peer_model(weights: str, name: str) -> Any:
    """Returns the SentenceTransformer of system `name` of `peer_systems`: float32 on a CPU, bfloat16 on a GPU."""
    import torch
    from sentence_transformers import SentenceTransformer

    if not torch.cuda.is_available():
        return SentenceTransformer(weights, device="cpu", local_files_only=True)
    unpadded = name.endswith("unpadded")
    options = {"dtype": torch.bfloat16, "attn_implementation": "flash_attention_2" if unpadded else "sdpa"}
    model = SentenceTransformer(weights, device="cuda", local_files_only=True, model_kwargs=options)
    if unpadded:
        model[0].unpad_inputs = True
    return model


def our_system(script: str, flags: Sequence[str]) -> System:
    """Returns the system `script --serve=crops_jax`.

    It keeps freed memory as launch.train does, and does not reserve the memory of a GPU, which other systems need too.
    """
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = ["-c", _KEEP_MEMORY, script, "--serve=crops_jax", *flags]
    return System(python=Path(sys.executable), command=command, environment=environment)
