"""The environment variables that describe the processes of a cluster that run one program together.

| started by | variables that are read |
| --- | --- |
| any launcher | JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES, JAX_PROCESS_ID: all three |
| Slurm (srun) | SLURM_*, by JAX; the tasks of a node share its GPUs equally |
| Open MPI (mpirun) | OMPI_*, by JAX; version 5 also needs JAX_COORDINATOR_ADDRESS |
| Cloud TPU (a pod's VMs, GKE) | TPU_WORKER_* or the machine's metadata, by JAX |

JAX_COORDINATOR_ADDRESS replaces the address that the other variables name. A program that none of these launchers
started is one process.
"""

import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from crops_jax.devices import metadata_server
from crops_jax.devices.platforms import has_tpu, set_platforms
from crops_jax.errors import InputError, NamedFailure, one_line

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# srun sets these for each task. A batch script itself has no SLURM_STEP_NODELIST.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_OPEN_MPI_COUNT, _OPEN_MPI_INDEX = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"
_OPEN_MPI_LAUNCHER = "OMPI_MCA_orte_hnp_uri"
_BIND_ADDRESS = "JAX_COORDINATOR_BIND_ADDRESS"
_JOB = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "CROPS_JOB")
_LAUNCHERS = {"slurm": "Slurm (SLURM_*)", "ompi": "Open MPI (OMPI_*)"}


def leave_shared_tpu(environment: MutableMapping[str, str]) -> None:
    """Keeps JAX on the CPU of a machine whose TPU chips belong to a slice of several machines.

    A program that opened them alone would wait for the other machines. It must be called before JAX creates its
    devices.
    """
    if tpu_machines(environment) > 1:
        set_platforms(environment, "cpu")


def tpu_machines(environment: Mapping[str, str], *, looks_for_tpu: Callable[[], bool] = has_tpu) -> int:
    """Returns the number of machines that the TPU chips of this one need, all slices together; 1 without any.

    The variables of GKE and of multi-slice jobs decide, or the metadata of a machine that has chips. It is 1 when
    JAX_PLATFORMS keeps JAX from TPUs.

    Args:
      environment: os.environ.
      looks_for_tpu: returns whether the machine seems to have TPU chips.
    """
    if not _may_use_tpu(environment):
        return 1
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    names = environment.get("TPU_WORKER_HOSTNAMES")
    if names is None and not environment.get("TPU_SKIP_MDS_QUERY") and looks_for_tpu():
        names = metadata_server.read("attributes/worker-network-endpoints", environment)
    return len((names or "").split(",")) * (int(slices) if slices.isdecimal() else 1)


def membership(environment: Mapping[str, str], *, looks_for_tpu: Callable[[], bool] = has_tpu) -> dict[str, Any] | None:
    """Returns the arguments of jax.distributed.initialize for this process, or None when it is the only one.

    Args:
      environment: os.environ.
      looks_for_tpu: returns whether the machine seems to have TPU chips. It is called when no variable describes the
        processes; if it returns True, JAX finds out whether the machine belongs to a pod.

    Raises:
      InputError: some variables are missing or wrong; the message names them.
    """
    if environment.get(_COUNT) or environment.get(_INDEX):
        return _from_jax_variables(environment)
    if all(name in environment for name in _SLURM):
        if _number(environment, "SLURM_NTASKS", minimum=1) > 1:
            return {"cluster_detection_method": "slurm", **_own_gpus(environment)}
    elif _number(environment, _OPEN_MPI_COUNT, minimum=1, default=1) > 1:
        return _from_open_mpi(environment)
    elif _may_use_tpu(environment) and looks_for_tpu():
        return {}
    elif environment.get(_ADDRESS):
        return _from_jax_variables(environment)
    return None


def resolved(arguments: dict[str, Any], environment: Mapping[str, str], *, seconds: int) -> dict[str, Any] | None:
    """Returns the arguments of jax.distributed.initialize with all that JAX detects; None outside of a cluster.

    Args:
      arguments: what `membership` returned.
      environment: os.environ.
      seconds: the time that the detection may take.

    Raises:
      InputError: the variables of a launcher cannot be read.
      NamedFailure: the machines of a TPU slice do not answer.
    """
    own = arguments.get("local_device_ids") or _device_ids(environment)
    method = arguments.get("cluster_detection_method")
    if method == "deactivate":
        return arguments | {"coordinator_bind_address": _bind_address(environment, arguments["coordinator_address"])}
    if environment.get(_ADDRESS):
        _address(environment)
    from jax._src.clusters import ClusterEnv  # jax.distributed.initialize calls it too, and joins at once

    try:
        address, count, index, own = ClusterEnv.auto_detect_unset_distributed_params(
            environment.get(_ADDRESS) or None, None, None, own, method, seconds
        )
        if count is not None and index is not None and not 0 <= index < count:
            raise ValueError(f"process {index} of {count}")
    except Exception as error:  # each launcher has errors of its own
        if method is None:
            raise NamedFailure(
                f"the machines of this TPU slice could not be found ({one_line(error)}); call the same command again, "
                "or set TPU_SKIP_MDS_QUERY=1 where no metadata server exists"
            ) from error
        raise InputError(
            f"the variables of {_LAUNCHERS[method]} cannot be read ({one_line(error)}); set {_ADDRESS}, {_COUNT} and "
            f"{_INDEX} in every process instead"
        ) from error
    if address is None or count is None or index is None:
        return None  # this machine has TPU chips but belongs to no pod
    host, _, port = address.rpartition(":")
    if ":" in host and not host.startswith("["):
        address = f"[{host}]:{port}"  # Open MPI names an address of IPv6 without brackets
    _check_address("the address of process 0", address)
    return {
        "coordinator_address": address,
        "coordinator_bind_address": _bind_address(environment, address),
        "num_processes": count,
        "process_id": index,
        "local_device_ids": own,
        "cluster_detection_method": "deactivate",
    }


def job_of(environment: Mapping[str, str]) -> str:
    """Returns what the processes of one start have in common, and those of another start on the same machines have not.

    It is the step of a job of Slurm, the job of Open MPI, or CROPS_JOB, and empty where no launcher says it.
    """
    return " ".join(f"{name}={environment[name]}" for name in _JOB if environment.get(name))


def _bind_address(environment: Mapping[str, str], address: str) -> str:
    """Returns where process 0 listens. JAX takes an empty variable for an address."""
    if not (given := environment.get(_BIND_ADDRESS)):
        return f"[::]:{address.rpartition(':')[2]}"
    _check_address(_BIND_ADDRESS, given)
    return given


def _device_ids(environment: Mapping[str, str]) -> list[int] | None:
    name = "JAX_LOCAL_DEVICE_IDS"
    if not (text := environment.get(name)):
        return None
    if not all(one.isdecimal() and one.isascii() for one in text.split(",")):
        raise InputError(f"{name} = {text!r} must be numbers of devices from 0, separated by commas")
    return [int(one) for one in text.split(",")]


def _from_jax_variables(environment: Mapping[str, str]) -> dict[str, Any] | None:
    names = (_ADDRESS, _COUNT, _INDEX)
    if missing := [name for name in names if not environment.get(name)]:
        present = " and ".join(name for name in names if name not in missing)
        raise InputError(
            f"{present} {'is' if len(missing) == 2 else 'are'} set and {' and '.join(missing)} not: set all three in "
            "every process (HOST:PORT of process 0, the number of processes, the number of this one from 0), or none"
        )
    count, index = _count_and_index(environment, _COUNT, _INDEX)
    address = _address(environment)
    if count == 1:
        return None
    # Nothing is left to detect. On the machines of a cluster, detection would also leave this process only one device.
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def _own_gpus(environment: Mapping[str, str]) -> dict[str, list[int]]:
    """Returns the argument that gives a task of Slurm an equal share of the GPUs of its node.

    JAX would give it one GPU. The choice is left to JAX where Slurm does not name the GPUs and tasks of the node, and
    where the shares are not equal.
    """
    gpus, counts = environment.get("SLURM_GPUS_ON_NODE", ""), environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    runs = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", run) for run in counts.split(",")]  # such as 2(x3),1
    tasks = [int(run[1]) for run in runs if run for _ in range(int(run[2] or 1))]
    node = environment.get("SLURM_NODEID", "")
    if not (gpus.isdecimal() and node.isdecimal() and int(node) < len(tasks)):
        return {}
    share, rest = divmod(int(gpus), tasks[int(node)])
    if rest or not share:
        return {}
    first = share * _number(environment, "SLURM_LOCALID", minimum=0)
    return {"local_device_ids": list(range(first, first + share))}


def _from_open_mpi(environment: Mapping[str, str]) -> dict[str, Any]:
    if _OPEN_MPI_LAUNCHER in environment:
        return {"cluster_detection_method": "ompi"}
    count, index = _count_and_index(environment, _OPEN_MPI_COUNT, _OPEN_MPI_INDEX)
    if _ADDRESS not in environment:
        raise InputError(
            f"Open MPI started {count} processes ({_OPEN_MPI_COUNT}) and does not say where process 0 is; set "
            f"{_ADDRESS}=HOST:PORT for all of them: mpirun -x {_ADDRESS}=HOST:PORT ..."
        )
    return {
        "coordinator_address": _address(environment),
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def _count_and_index(environment: Mapping[str, str], count_name: str, index_name: str) -> tuple[int, int]:
    count = _number(environment, count_name, minimum=1)
    index = _number(environment, index_name, minimum=0)
    if index >= count:
        raise InputError(f"{index_name} = {index} must be below {count_name} = {count}; processes are numbered from 0")
    return count, index


def _may_use_tpu(environment: Mapping[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS", "")
    return not platforms or "tpu" in platforms.split(",")


def _address(environment: Mapping[str, str]) -> str:
    _check_address(_ADDRESS, environment[_ADDRESS])
    return environment[_ADDRESS]


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    is_port = port.isdecimal() and port.isascii() and 0 < int(port) < 65536
    is_host = bool(host) and "/" not in host and host == host.strip()
    if not is_port or not is_host or (":" in host) != (host.startswith("[") and host.endswith("]")):
        raise InputError(
            f"{name} = {address!r} must be HOST:PORT of process 0, with a port that is free there, and with an address "
            "of IPv6 in brackets"
        )


def _number(environment: Mapping[str, str], name: str, *, minimum: int, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not (text.isdecimal() and text.isascii() and int(text) >= minimum):
        raise InputError(f"{name} = {text!r} must be a whole number >= {minimum}")
    return int(text)
