import importlib.util

import jax
import pytest

from crops_jax.devices import cluster_environment
from crops_jax.devices.cluster_environment import membership
from crops_jax.errors import InputError

BY_HAND = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


def no_tpu():
    return False


def found(environment, looks_for_tpu=no_tpu):
    return membership(environment, looks_for_tpu=looks_for_tpu)


def test_one_process_needs_nothing():
    assert found({}) is None
    assert found(BY_HAND | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None
    assert found(SLURM | {"SLURM_NTASKS": "1"}) is None
    assert found(OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}) is None
    assert found(dict.fromkeys(BY_HAND, "")) is None
    # A batch script, whose tasks srun starts.
    assert found({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}) is None


@pytest.mark.parametrize(
    ("installed", "platforms", "expected"),
    [
        ({"libtpu"}, "", [("jax_platforms", "cpu")]),
        ({"libtpu"}, "tpu", []),
        ({"libtpu", "jax_cuda13_plugin"}, "", []),
        (set(), "", []),
    ],
)
def test_a_library_for_tpus_without_a_tpu_is_left_alone(monkeypatch, installed, platforms, expected):
    set_to = []
    monkeypatch.setattr(jax.config, "update", lambda *value: set_to.append(value))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(cluster_environment, "has_tpu", no_tpu)
    environment = {"JAX_PLATFORMS": platforms} if platforms else {}
    cluster_environment.skip_absent_tpu(environment)
    assert set_to == expected
    assert environment.get("JAX_PLATFORMS", "") == (expected[0][1] if expected else platforms)


def test_what_is_said_by_hand_wins():
    expected = {"coordinator_address": "10.0.0.1:1234", "num_processes": 4, "process_id": 3}
    assert found(SLURM | BY_HAND) == expected | {"cluster_detection_method": "deactivate"}


def test_launchers_are_left_to_jax():
    assert found(SLURM) == {"cluster_detection_method": "slurm"}
    uri = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
    assert found(OPEN_MPI | uri) == {"cluster_detection_method": "ompi"}
    assert found({}, lambda: True) == {}
    assert found({"JAX_PLATFORMS": "tpu,cpu"}, lambda: True) == {}
    assert found({"JAX_PLATFORMS": "cpu"}, lambda: True) is None


def test_open_mpi_5_needs_an_address():
    with pytest.raises(InputError, match=r"Open MPI started 4 processes .*set JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        found(OPEN_MPI)
    address = {"JAX_COORDINATOR_ADDRESS": "node1:1234"}
    expected = {"coordinator_address": "node1:1234", "num_processes": 4, "process_id": 2}
    assert found(OPEN_MPI | address) == expected | {"cluster_detection_method": "deactivate"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["JAX_COORDINATOR_ADDRESS"], "JAX_COORDINATOR_ADDRESS is set and JAX_NUM_PROCESSES and JAX_PROCESS_ID not"),
        (["JAX_NUM_PROCESSES"], "JAX_NUM_PROCESSES is set and JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID not"),
        (["JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"], "JAX_PROCESS_ID are set and JAX_NUM_PROCESSES not: set all"),
    ],
)
def test_half_set_variables_are_named(given, message):
    with pytest.raises(InputError, match=message):
        found({name: BY_HAND[name] for name in given})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID = 4 must be below JAX_NUM_PROCESSES = 4"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID = '-1' must be a whole number >= 0"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES = 'two' must be a whole number >= 1"),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "'10.0.0.1' must be HOST:PORT"),
        ({"JAX_COORDINATOR_ADDRESS": "host:99999"}, "'host:99999' must be HOST:PORT"),
    ],
)
def test_wrong_values_are_named(changed, message):
    with pytest.raises(InputError, match=message):
        found(BY_HAND | changed)
