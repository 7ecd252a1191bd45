"""The scripts that start several processes, with stand-ins for what they call."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crops_jax import program
from crops_jax.errors import InputError, Interrupted
from launch.train import train
from tests.paths import ROOT

SCRIPTS = ROOT / "launch" / "scripts"


def stand_in(folder: Path, name: str, body: str) -> Path:
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{body}\n")
    file.chmod(0o755)
    return file


def run(script: str, *arguments: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | variables
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    command = ["bash", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def assert_taken(arguments: list[str]) -> None:
    """The program's own parser takes the command."""
    assert arguments[:2] == ["-m", "launch.train"]
    parsed = program.parse(train, arguments[2:])
    assert parsed.records
    assert parsed.output


def test_every_script_is_bash_or_yaml_and_names_no_registry():
    scripts = sorted(SCRIPTS.iterdir())
    assert len(scripts) == 5
    for script in scripts:
        text = script.read_text()
        if script.name == "Containerfile":
            assert text.count("\nFROM ") == 1
        elif script.suffix == ".yaml":
            assert list(yaml.safe_load_all(text))
        else:
            subprocess.run(["bash", "-n", str(script)], check=True)
            assert "set -euo pipefail" in text
        assert "://" not in text


def test_one_machine_numbers_its_processes_and_ends_with_the_status_of_one_that_failed(tmp_path):
    body = f'echo "$JAX_PROCESS_ID $JAX_NUM_PROCESSES $JAX_LOCAL_DEVICE_IDS $*" > {tmp_path}/$JAX_PROCESS_ID'
    python = stand_in(
        tmp_path, "python", f'{body}; test "$JAX_COORDINATOR_ADDRESS" = 127.0.0.1:7; exit $JAX_PROCESS_ID'
    )
    command = ["launch.train", "tiny_cpu", "--records", "a b", "--output", "run"]
    done = run("one_machine.sh", "3", *command, PYTHON=str(python), PORT="7")
    assert done.returncode in (1, 2), done.stderr
    for index in range(3):
        said = (tmp_path / str(index)).read_text()
        assert said == f"{index} 3 {index} -m launch.train tiny_cpu --records a b --output run\n"
    assert run("one_machine.sh", "launch.train").returncode == 2


def test_one_machine_finds_a_free_port_and_names_a_missing_environment(tmp_path):
    """With one port for all, the processes of a second call would join those of the first."""
    body = f'if [ "$1" = -c ]; then echo 4242; else echo "$JAX_COORDINATOR_ADDRESS" > {tmp_path}/$JAX_PROCESS_ID; fi'
    assert run("one_machine.sh", "2", "launch.train", PYTHON=str(stand_in(tmp_path, "python", body))).returncode == 0
    assert [(tmp_path / name).read_text() for name in "01"] == ["127.0.0.1:4242\n"] * 2
    done = run("one_machine.sh", "1", "data", PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    assert "cannot be directly executed" in done.stderr  # Python itself gave the port
    missing = run("one_machine.sh", "2", "launch.train", PYTHON=str(tmp_path / "none"))
    assert missing.returncode == 2
    assert "none; call the script in the folder of the clone after make setup, or set PYTHON" in missing.stderr


def test_one_machine_ends_the_others_when_one_fails(tmp_path):
    """Before they have joined, a process does not learn that another one has failed."""
    wait = f"trap 'touch {tmp_path}/told; kill $waiting; exit 3' TERM; sleep 60 & waiting=$!; wait $waiting"
    python = stand_in(tmp_path, "python", f'if [ "$JAX_PROCESS_ID" = 0 ]; then exit 2; fi; {wait}')
    done = run("one_machine.sh", "2", "launch.train", PYTHON=str(python), PORT="7", GRACE_SECONDS="1")
    assert done.returncode == 2
    assert (tmp_path / "told").exists()


def test_one_machine_passes_a_signal_on(tmp_path):
    body = (
        f"trap 'kill $waiting; exit 3' TERM; sleep 60 & waiting=$!; touch {tmp_path}/up-$JAX_PROCESS_ID; wait $waiting"
    )
    python = stand_in(tmp_path, "python", body)
    command = ["bash", str(SCRIPTS / "one_machine.sh"), "2", "launch.train"]
    started = subprocess.Popen(command, env=os.environ | {"PYTHON": str(python), "PORT": "7"})
    while started.poll() is None and len(list(tmp_path.glob("up-*"))) < 2:
        os.sched_yield()
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=60) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_machine_passes_a_signal_of_its_group_on_once(number, tmp_path):
    """A terminal sends Ctrl-C to the group of the script. A second signal would end a process before its checkpoint."""
    end = f"trap 'echo told >> {tmp_path}/told-$JAX_PROCESS_ID; kill $waiting; exit 3' TERM INT HUP"
    body = f"{end}; sleep 60 & waiting=$!; touch {tmp_path}/up-$JAX_PROCESS_ID; wait $waiting"
    python = stand_in(tmp_path, "python", body)
    command = ["bash", str(SCRIPTS / "one_machine.sh"), "2", "launch.train"]
    environment = os.environ | {"PYTHON": str(python), "PORT": "7"}
    # A shell that runs the tests in the background ignores SIGINT, and so would the script.
    heard = functools.partial(signal.signal, number, signal.SIG_DFL)
    started = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=heard)
    while started.poll() is None and len(list(tmp_path.glob("up-*"))) < 2:
        os.sched_yield()
    os.killpg(started.pid, number)
    assert started.wait(timeout=60) == 3
    assert [(tmp_path / f"told-{index}").read_text() for index in (0, 1)] == ["told\n"] * 2


@pytest.mark.parametrize("status", [0, 3, 4])
def test_the_slurm_job_starts_a_command_that_is_taken_and_is_put_back_when_interrupted(tmp_path, status):
    stand_in(tmp_path, "srun", f'printf "%s\\n" "$@" > {tmp_path}/arguments; exit {status}')
    stand_in(tmp_path, "scontrol", f'echo "$*" > {tmp_path}/requeued')
    variables = {"CONFIG": "qwen2_5_0_5b", "RECORDS": "records of mine", "RUN": "run", "SLURM_JOB_ID": "7"}
    variables |= {"SLURM_CPUS_PER_TASK": "96"}
    done = run("slurm.sbatch", "--encoder.weights", "w w", path=tmp_path, **variables)
    assert done.returncode == status
    processors, ending, _, *arguments = (tmp_path / "arguments").read_text().splitlines()
    assert (processors, ending) == ("--cpus-per-task=96", "--kill-on-bad-exit=0")
    assert_taken(arguments)
    assert arguments[-2:] == ["--encoder.weights", "w w"]
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 7\n" if status == 3 else "")
    assert run("slurm.sbatch", path=tmp_path, CONFIG="minilm").returncode != 0


def fits(value, schema, path=""):
    """Yields where a value contradicts a schema of Kubernetes: an unknown field, a wrong type, a missing field."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if "x-kubernetes-int-or-string" in schema:
        kinds |= {None: int | str}
    if not isinstance(value, kinds[schema.get("type")]):
        yield f"{path}: {value!r} is no {schema.get('type')}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, dict) and "properties" in schema:
        yield from (f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, inner in value.items():
            if name not in schema["properties"]:
                yield f"{path}.{name} is unknown"
            else:
                yield from fits(inner, schema["properties"][name], f"{path}.{name}")
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for name, inner in value.items():
            yield from fits(inner, schema["additionalProperties"], f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from fits(inner, schema["items"], f"{path}[{number}]")


@pytest.fixture(scope="module")
def jobset_schema():
    """The fields of the published definition of JobSet 0.10 (v1alpha2) that the manifests come past, without words."""
    return json.loads((Path(__file__).parent / "jobset_schema.json").read_text())


@pytest.mark.parametrize("name", ["gke_gpu", "gke_tpu"])
def test_a_jobset_is_one_by_the_published_definition(name, jobset_schema):
    manifest = yaml.safe_load((SCRIPTS / f"{name}.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert list(fits(manifest, jobset_schema)) == []
    manifest["spec"]["failurePolicy"]["rules"][0] |= {"action": "Ignore", "onExitCodes": [3]}
    manifest["spec"]["replicatedJobs"][0].pop("name")
    found = list(fits(manifest, jobset_schema))
    assert len(found) == 3, found


@pytest.mark.parametrize("name", ["gke_gpu", "gke_tpu"])
def test_a_preempted_set_starts_again_and_wrong_arguments_end_it(name):
    spec = yaml.safe_load((SCRIPTS / f"{name}.yaml").read_text())["spec"]
    (job,) = spec["replicatedJobs"]
    job = job["template"]["spec"]
    wrong, preempted = spec["failurePolicy"]["rules"]
    assert (wrong["action"], preempted["action"]) == ("FailJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    assert wrong["onJobFailureReasons"] == preempted["onJobFailureReasons"] == ["PodFailurePolicy"]
    (pattern,) = wrong["onJobFailureMessagePatterns"]
    # The message of Kubernetes, of which the pattern is a part for status 2 alone.
    message = "Container train for pod default/crops-jax-0 failed with exit code {} matching FailJob rule at index 0"
    assert [status for status in range(256) if re.search(pattern, message.format(status))] == [2]
    rules = job["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    statuses = [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule]
    assert statuses == [[InputError.status], [Interrupted.status, 128 + signal.SIGABRT]]
    assert rules[-1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")


@pytest.mark.parametrize("name", ["gke_gpu", "gke_tpu"])
def test_the_pods_of_a_set_run_a_command_that_is_taken(name):
    job = yaml.safe_load((SCRIPTS / f"{name}.yaml").read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["image"] == "$IMAGE"
    assert_taken(container["command"][1:])
    assert job["completions"] == job["parallelism"] > 1


def test_the_pods_with_gpus_know_one_another():
    manifest = yaml.safe_load((SCRIPTS / "gke_gpu.yaml").read_text())
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {one["name"]: one.get("value", json.dumps(one.get("valueFrom"))) for one in container["env"]}
    # JobSet names pods NAME-JOB-INDEX-POD in the subdomain NAME.
    name = manifest["metadata"]["name"]
    assert variables["JAX_COORDINATOR_ADDRESS"].startswith(f"{name}-{replicated['name']}-0-0.{name}:")
    assert (replicated["replicas"], job["completions"]) == (1, int(variables["JAX_NUM_PROCESSES"]))
    assert "job-completion-index" in variables["JAX_PROCESS_ID"]


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt-get install shellcheck)"
)
def test_shellcheck_finds_nothing_in_the_scripts():
    scripts = [str(script) for script in SCRIPTS.iterdir() if script.suffix in (".sh", ".sbatch")]
    assert scripts
    done = subprocess.run(["shellcheck", "--shell=bash", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("platform", "locked"), [("cpu", "main"), ("cuda", "cuda"), ("tpu", "tpu"), ("gpu", None)])
def test_an_image_has_the_locked_packages_of_its_platform(tmp_path, platform, locked):
    stand_in(tmp_path, "python", f'echo "$*" >> {tmp_path}/calls')
    lines = (SCRIPTS / "Containerfile").read_text().splitlines()
    commands = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]
    environment = os.environ | {"PLATFORM": platform, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    statuses = [
        subprocess.run(["sh", "-c", line], env=environment, capture_output=True).returncode for line in commands
    ]
    assert statuses == ([0, 0, 0] if locked else [0, 2, 0])
    calls = (tmp_path / "calls").read_text()
    if locked:
        assert f"--require-hashes -r requirements/{locked}.txt" in calls
        names = {"cpu": "jax==", "cuda": "jax-cuda13-plugin==", "tpu": "libtpu=="}
        text = (ROOT / "requirements" / f"{locked}.txt").read_text()
        assert f"\n{names[platform]}" in text
        assert "://" not in text
