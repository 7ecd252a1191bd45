"""The scripts that start several processes, with stand-ins for what they call."""

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from crops_jax import program
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
    assert len(scripts) == 4
    for script in scripts:
        text = script.read_text()
        if script.suffix == ".yaml":
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
    assert done.returncode == 1, done.stderr
    for index in range(3):
        said = (tmp_path / str(index)).read_text()
        assert said == f"{index} 3 {index} -m launch.train tiny_cpu --records a b --output run\n"
    assert run("one_machine.sh", "launch.train").returncode == 2


def test_one_machine_passes_a_signal_on(tmp_path):
    body = (
        f"trap 'kill $waiting; exit 3' TERM; sleep 60 & waiting=$!; touch {tmp_path}/up-$JAX_PROCESS_ID; wait $waiting"
    )
    python = stand_in(tmp_path, "python", body)
    command = ["bash", str(SCRIPTS / "one_machine.sh"), "2", "launch.train"]
    started = subprocess.Popen(command, env=os.environ | {"PYTHON": str(python)})
    while started.poll() is None and len(list(tmp_path.glob("up-*"))) < 2:
        os.sched_yield()
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=60) == 3


@pytest.mark.parametrize("status", [0, 3, 4])
def test_the_slurm_job_starts_a_command_that_is_taken_and_is_put_back_when_interrupted(tmp_path, status):
    stand_in(tmp_path, "srun", f'printf "%s\\n" "${{@:3}}" > {tmp_path}/arguments; exit {status}')
    stand_in(tmp_path, "scontrol", f'echo "$*" > {tmp_path}/requeued')
    variables = {"CONFIG": "qwen2_5_0_5b", "RECORDS": "records of mine", "RUN": "run", "SLURM_JOB_ID": "7"}
    done = run("slurm.sbatch", path=tmp_path, **variables)
    assert done.returncode == status
    assert_taken((tmp_path / "arguments").read_text().splitlines())
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 7\n" if status == 3 else "")
    assert run("slurm.sbatch", path=tmp_path, CONFIG="minilm").returncode != 0


def test_the_pod_s_machines_run_a_command_that_is_taken(tmp_path):
    stand_in(tmp_path, "gcloud", f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    flags = ["--optimizer.learning-rate", "1e-5"]
    arguments = ["qwen2_5_0_5b", "/mnt/my records", "/mnt/run", *flags]
    done = run("tpu_pod.sh", *arguments, path=tmp_path, TPU="pod", ZONE="zone", FOLDER="my clone")
    assert done.returncode == 0, done.stderr
    given = (tmp_path / "arguments").read_text().splitlines()
    assert given[:7] == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=zone", "--worker=all"]
    folder, _, command = given[7].removeprefix("--command=cd ").partition(" && exec ")
    assert shlex.split(folder) == ["my clone"]
    python, *command = shlex.split(command)
    assert python == ".venv/bin/python"
    assert_taken(command)
    assert "/mnt/my records" in command
    assert run("tpu_pod.sh", "minilm").returncode == 2
    assert run("tpu_pod.sh", *arguments).returncode == 2
    assert run("slurm.sbatch", CONFIG="minilm").returncode == 2


def test_the_pods_of_the_job_run_a_command_that_is_taken_and_know_one_another():
    service, job = yaml.safe_load_all((SCRIPTS / "gke_job.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert_taken(container["command"][1:])
    variables = {one["name"]: one.get("value", json.dumps(one.get("valueFrom"))) for one in container["env"]}
    first = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert variables["JAX_COORDINATOR_ADDRESS"].startswith(f"{first}:")
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(variables["JAX_NUM_PROCESSES"])
    assert "job-completion-index" in variables["JAX_PROCESS_ID"]
    assert container["image"] == "$IMAGE"
