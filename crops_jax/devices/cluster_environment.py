"""What environment variables say of the processes of a cluster that run one program together.

| started by | what is read |
| --- | --- |
| anything | JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES, JAX_PROCESS_ID: all three |
| Slurm (srun) | SLURM_*, by JAX |
| Open MPI (mpirun) | OMPI_*, by JAX; version 5 needs JAX_COORDINATOR_ADDRESS beside them |
| Cloud TPU (a pod's VMs, GKE) | TPU_WORKER_* or the machine's metadata, by JAX |

JAX_COORDINATOR_ADDRESS replaces the address that the others give. Started by none of these, a program is one process.
"""

import glob
import importlib.util
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from crops_jax.errors import InputError

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# What srun gives to each task; a batch script itself has no step.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_OPEN_MPI_COUNT, _OPEN_MPI_INDEX = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"
_OPEN_MPI_LAUNCHER = "OMPI_MCA_orte_hnp_uri"
_GPU_PLUGINS = ("cuda12_plugin", "cuda13_plugin", "rocm60_plugin", "rocm7_plugin")


def has_tpu() -> bool:
    """Whether this machine seems to have TPU chips and the library for them; neither is opened."""
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def skip_absent_tpu(environment: MutableMapping[str, str]) -> None:
    """Keeps JAX on the CPU where libtpu is installed and no TPU is there; to be called before JAX has devices.

    libtpu would print warnings, and end the process when a profiler starts. Nothing changes where JAX_PLATFORMS says
    what to use, or a plugin for GPUs is installed beside it.

    Args:
      environment: os.environ, which processes that this one starts inherit.
    """
    if environment.get("JAX_PLATFORMS") or not importlib.util.find_spec("libtpu") or has_tpu():
        return
    if any(importlib.util.find_spec(f"jax_{name}") for name in _GPU_PLUGINS):
        return
    environment["JAX_PLATFORMS"] = "cpu"
    if jax := sys.modules.get("jax"):  # it has read its environment
        jax.config.update("jax_platforms", "cpu")


def membership(environment: Mapping[str, str], *, looks_for_tpu: Callable[[], bool] = has_tpu) -> dict[str, Any] | None:
    """Arguments of jax.distributed.initialize for this process; None where it is the only one.

    Args:
      environment: os.environ.
      looks_for_tpu: asked where no variable says anything. JAX then finds out whether the machine is one of a pod.

    Raises InputError, naming the variable, where some are missing or are not what they should be.
    """
    if environment.get(_COUNT) or environment.get(_INDEX):
        return _by_hand(environment)
    if all(name in environment for name in _SLURM):
        if _number(environment, "SLURM_NTASKS", least=1) > 1:
            return {"cluster_detection_method": "slurm"}
    elif _number(environment, _OPEN_MPI_COUNT, least=1, default=1) > 1:
        return _by_open_mpi(environment)
    elif _may_use_tpu(environment) and looks_for_tpu():
        return {}
    elif environment.get(_ADDRESS):
        return _by_hand(environment)
    return None


def _by_hand(environment: Mapping[str, str]) -> dict[str, Any] | None:
    names = (_ADDRESS, _COUNT, _INDEX)
    if missing := [name for name in names if not environment.get(name)]:
        given = " and ".join(name for name in names if name not in missing)
        raise InputError(
            f"{given} {'is' if len(missing) == 2 else 'are'} set and {' and '.join(missing)} not: set all three in "
            "every process (HOST:PORT of process 0, the number of processes, the number of this one from 0), or none"
        )
    count = _number(environment, _COUNT, least=1)
    index = _number(environment, _INDEX, least=0)
    if index >= count:
        raise InputError(f"{_INDEX} = {index} must be below {_COUNT} = {count}; processes are numbered from 0")
    address = _address(environment)
    if count == 1:
        return None
    # Nothing is left to be detected: on a cluster's machines detection would also take all devices but one away.
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def _by_open_mpi(environment: Mapping[str, str]) -> dict[str, Any]:
    if _OPEN_MPI_LAUNCHER in environment:
        return {"cluster_detection_method": "ompi"}
    count = _number(environment, _OPEN_MPI_COUNT, least=1)
    if _ADDRESS not in environment:
        raise InputError(
            f"Open MPI started {count} processes ({_OPEN_MPI_COUNT}) and does not say where process 0 is; set "
            f"{_ADDRESS}=HOST:PORT for all of them: mpirun -x {_ADDRESS}=HOST:PORT ..."
        )
    return {
        "coordinator_address": _address(environment),
        "num_processes": count,
        "process_id": _number(environment, _OPEN_MPI_INDEX, least=0),
        "cluster_detection_method": "deactivate",
    }


def _may_use_tpu(environment: Mapping[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS", "")
    return not platforms or "tpu" in platforms.split(",")


def _address(environment: Mapping[str, str]) -> str:
    address = environment[_ADDRESS]
    host, _, port = address.rpartition(":")
    if not host or not (port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"{_ADDRESS} = {address!r} must be HOST:PORT of process 0, with a port that is free there")
    return address


def _number(environment: Mapping[str, str], name: str, *, least: int, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not (text.isdecimal() and text.isascii() and int(text) >= least):
        raise InputError(f"{name} = {text!r} must be a whole number >= {least}")
    return int(text)
