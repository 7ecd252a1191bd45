import jax
import pytest
from jax._src.clusters import ClusterEnv

from crops_jax.devices import cluster_environment, metadata_server
from crops_jax.devices.cluster_environment import membership, tpu_machines
from crops_jax.errors import InputError, NamedFailure
from tests.metadata import MetadataServer

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
    ("environment", "expected"),
    [
        ({}, 1),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, 4),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d", "JAX_PLATFORMS": "cpu"}, 1),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d", "JAX_PLATFORMS": "tpu,cpu"}, 4),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, 4),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, 2),
    ],
)
def test_the_machines_of_a_slice_are_those_that_its_variables_name(environment, expected):
    assert tpu_machines(environment, looks_for_tpu=no_tpu) == expected


def test_a_machine_with_chips_and_without_variables_asks_its_metadata():
    with MetadataServer({"attributes/worker-network-endpoints": "a:b:10.0.0.2,a:b:10.0.0.3"}) as server:
        environment = {"GCE_METADATA_IP": server.address}
        assert tpu_machines(environment, looks_for_tpu=lambda: True) == 2
        assert tpu_machines(environment, looks_for_tpu=no_tpu) == 1
        assert tpu_machines(environment | {"TPU_SKIP_MDS_QUERY": "1"}, looks_for_tpu=lambda: True) == 1
        assert metadata_server.read("attributes/other", environment) is None
    assert tpu_machines(environment, looks_for_tpu=lambda: True) == 1  # nothing answers any more


def test_a_program_that_needs_no_accelerator_leaves_a_shared_tpu_alone(monkeypatch):
    set_to = []
    monkeypatch.setattr(jax.config, "update", lambda *value: set_to.append(value))
    alone, shared = {"TPU_WORKER_HOSTNAMES": "a"}, {"TPU_WORKER_HOSTNAMES": "a,b"}
    cluster_environment.leave_shared_tpu(alone)
    assert (alone, set_to) == ({"TPU_WORKER_HOSTNAMES": "a"}, [])
    cluster_environment.leave_shared_tpu(shared)
    assert (shared["JAX_PLATFORMS"], set_to) == ("cpu", [("jax_platforms", "cpu")])


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


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "3"}, [6, 7]),
        ({"SLURM_STEP_TASKS_PER_NODE": "8,2", "SLURM_LOCALID": "1"}, [4, 5, 6, 7]),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "5"}, [5]),
        ({"SLURM_STEP_TASKS_PER_NODE": "3(x2)", "SLURM_LOCALID": "1"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "", "SLURM_LOCALID": "1"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": ""}, None),
    ],
)
def test_the_tasks_of_a_node_share_its_gpus(node, expected):
    given = SLURM | {"SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "8"} | node
    shares = {} if expected is None else {"local_device_ids": expected}
    assert found(given) == {"cluster_detection_method": "slurm"} | shares


def test_open_mpi_5_needs_an_address():
    with pytest.raises(InputError, match=r"Open MPI started 4 processes .*set JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        found(OPEN_MPI)
    address = {"JAX_COORDINATOR_ADDRESS": "node1:1234"}
    expected = {"coordinator_address": "node1:1234", "num_processes": 4, "process_id": 2}
    assert found(OPEN_MPI | address) == expected | {"cluster_detection_method": "deactivate"}


def test_open_mpi_5_numbers_its_processes_from_0():
    address = {"JAX_COORDINATOR_ADDRESS": "node1:1234"}
    with pytest.raises(InputError, match=r"OMPI_COMM_WORLD_RANK = 4 must be below OMPI_COMM_WORLD_SIZE = 4"):
        found(OPEN_MPI | address | {"OMPI_COMM_WORLD_RANK": "4"})


def test_an_address_of_ipv6_has_brackets(monkeypatch):
    with pytest.raises(InputError, match=r"'::1:29502' must be HOST:PORT .*IPv6 in brackets"):
        found(BY_HAND | {"JAX_COORDINATOR_ADDRESS": "::1:29502"})
    assert found(BY_HAND | {"JAX_COORDINATOR_ADDRESS": "[::1]:29502"})["coordinator_address"] == "[::1]:29502"
    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", lambda *_: ("::1:5", 2, 1, None))
    detected = cluster_environment.resolved({"cluster_detection_method": "ompi"}, {}, seconds=1)
    assert (detected["coordinator_address"], detected["coordinator_bind_address"]) == ("[::1]:5", "[::]:5")


def of(environment, **variables):
    return cluster_environment.resolved(found(environment | variables), environment | variables, seconds=1)


def test_what_jax_detects_is_known_before_it_joins(monkeypatch):
    by_hand = found(BY_HAND)
    listens = {"coordinator_bind_address": "[::]:1234"}
    assert cluster_environment.resolved(by_hand, BY_HAND, seconds=1) == by_hand | listens
    assert of(BY_HAND, JAX_COORDINATOR_BIND_ADDRESS="")["coordinator_bind_address"] == "[::]:1234"
    assert of(BY_HAND, JAX_COORDINATOR_BIND_ADDRESS="0.0.0.0:7")["coordinator_bind_address"] == "0.0.0.0:7"
    slurm = SLURM | {"SLURM_STEP_NODELIST": "node[3-4]", "SLURM_JOB_ID": "7"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)  # JAX reads the environment of the process
    detected = of(slurm)
    assert detected["coordinator_address"].startswith("node3:")
    numbers = [int(slurm["SLURM_NTASKS"]), int(slurm["SLURM_PROCID"]), [int(slurm["SLURM_LOCALID"])]]
    assert [detected[name] for name in ("num_processes", "process_id", "local_device_ids")] == numbers
    assert of(slurm, JAX_LOCAL_DEVICE_IDS="0,1")["local_device_ids"] == [0, 1]
    assert of(slurm, JAX_COORDINATOR_ADDRESS="other:1")["coordinator_address"] == "other:1"
    assert of(slurm, JAX_COORDINATOR_ADDRESS="")["coordinator_address"] == detected["coordinator_address"]
    assert cluster_environment.job_of(slurm | {"SLURM_STEP_ID": "0"}) == "SLURM_JOB_ID=7 SLURM_STEP_ID=0"
    for name, value in {"ADDRESS": "other", "BIND_ADDRESS": "0.0.0.0", "BIND_ADDRESS ": "x"}.items():
        variable = f"JAX_COORDINATOR_{name.strip()}"
        with pytest.raises(InputError, match=rf"{variable} = '{value}' must be HOST:PORT"):
            of(slurm, **{variable: value})
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "70000")
    with pytest.raises(InputError, match=r"the address of process 0 = 'node3:70000' must be HOST:PORT"):
        of(slurm)
    monkeypatch.delenv("JAX_COORDINATOR_PORT")
    monkeypatch.setenv("SLURM_JOB_ID", "x")
    with pytest.raises(InputError, match=r"the variables of Slurm \(SLURM_\*\) cannot be read .*set JAX_COORD"):
        of(slurm)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "8")
    with pytest.raises(InputError, match=r"Slurm \(SLURM_\*\) cannot be read \(process 8 of 8\)"):
        of(slurm)


def test_what_open_mpi_says_of_its_launcher_can_be_damaged(monkeypatch):
    damaged = OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "garbage"}
    for name, value in damaged.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"the variables of Open MPI \(OMPI_\*\) cannot be read"):
        of(damaged)


@pytest.mark.parametrize("devices", ["a", "0,", "0;1", "-1", "\u0663"])
def test_devices_of_a_process_are_numbers(devices):
    with pytest.raises(InputError, match=r"JAX_LOCAL_DEVICE_IDS = .* must be numbers of devices from 0"):
        of(BY_HAND, JAX_LOCAL_DEVICE_IDS=devices)


def test_a_machine_with_tpu_chips_can_belong_to_no_pod(monkeypatch):
    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", lambda *_: (None, None, None, None))
    assert cluster_environment.resolved({}, {}, seconds=1) is None

    def unreachable(*_):
        raise OSError("no metadata")

    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", unreachable)
    with pytest.raises(NamedFailure, match=r"the machines of this TPU slice could not be found \(no metadata\)"):
        cluster_environment.resolved({}, {}, seconds=1)


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
        ({"JAX_COORDINATOR_ADDRESS": "http://10.0.0.1:80"}, "'http://10.0.0.1:80' must be HOST:PORT"),
        ({"JAX_COORDINATOR_ADDRESS": "host:\u0663\u0663"}, "must be HOST:PORT"),
    ],
)
def test_wrong_values_are_named(changed, message):
    with pytest.raises(InputError, match=message):
        found(BY_HAND | changed)
