"""launch.tpu with a stand-in for gcloud, which runs what it would run on a machine in a shell of this one."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from crops_jax import program
from crops_jax.devices.tpu_topology import accelerator_type
from crops_jax.errors import InputError, NamedFailure
from launch.tpu import TpuArguments, tpu
from tests.launch.test_scripts import assert_taken, stand_in

PATIENCE_SECONDS = 60
PLACE = {"name": "pod", "zone": "us-east5-a"}
TRAIN = "launch.train qwen2_5_0_5b --records '/shared/my records' --output /shared/run"


def commands(action, **flags):
    """The words of the commands that --dry-run prints."""
    outcome = tpu(TpuArguments(action=action, dry_run=True, **PLACE, **flags))
    assert outcome["dry_run"]
    return [shlex.split(command) for command in outcome["commands"]]


def queued(verb):
    return ["gcloud", "compute", "tpus", "queued-resources", verb, "pod", "--zone=us-east5-a"]


def remote(command):
    assert command[-1].startswith("--command=")
    return command[-1].removeprefix("--command=")


def test_a_queued_resource_is_asked_for(tmp_path):
    (command,) = commands("create", topology="v5e:16x16")
    kind = ["--accelerator-type=v5litepod-256", "--runtime-version=v2-alpha-tpuv5-lite"]
    assert command == [*queued("create"), "--node-id=pod", *kind]
    script = tmp_path / "prepare.sh"
    script.touch()
    given = {"topology": "v5p:2x2x4", "slices": 2, "spot": True, "startup_script": str(script), "project": "mine"}
    (command,) = commands("create", **given)
    # 16 chips of v5p are a slice of 2x2x4, and as well one of 4x4x1.
    kind = ["--type=v5p", "--topology=2x2x4", "--runtime-version=v2-alpha-tpuv5"]
    nodes = ["--project=mine", "--node-count=2", "--node-prefix=pod"]
    assert command == [*queued("create"), *nodes, *kind, "--spot", f"--metadata-from-file=startup-script={script}"]


@pytest.mark.parametrize(
    ("topology", "kind"),
    [("v4:2x2x4", "v4-32"), ("v5e:4x4", "v5litepod-16"), ("v5p:8x8x8", "v5p-1024"), ("v6e:2x2", "v6e-4")],
)
def test_the_types_of_slices_are_those_of_google(topology, kind):
    assert accelerator_type(topology) == kind


@pytest.mark.parametrize(
    ("action", "flags", "message"),
    [
        ("create", {}, "launch.tpu create needs --topology"),
        ("create", {"topology": "v7:2x2"}, "--topology v7:2x2: a slice is GENERATION:SHAPE"),
        ("create", {"topology": "v5e:2x2", "slices": 0}, "--slices 0"),
        ("create", {"topology": "v5e:3x3"}, "--topology v5e:3x3: the slices of v5e are 1x1, 2x2"),
        ("create", {"topology": "v5e:2x2", "startup_script": "none.sh"}, "--startup-script none.sh: no such file"),
        ("run", {"log": "log", "folder": "~/c", "command": TRAIN}, "--folder ~/c: the machines do not expand ~"),
        ("follow", {"log": "~/log"}, "--log ~/log: the machines do not expand ~"),
        ("run", {"command": TRAIN}, "launch.tpu run needs --log"),
        ("run", {"log": "log"}, "launch.tpu run needs --command with one of launch.train, launch.embed"),
        ("run", {"log": "log", "command": "launch.evaluate --run r"}, "the other programs run in one process"),
        ("follow", {}, "launch.tpu follow needs --log"),
        (
            "run",
            {"log": "log", "command": "launch.train x --records 'a"},
            "cannot be split into words: No closing quotation",
        ),
        ("run", {"log": "gs://bucket/log", "command": TRAIN}, "--log gs://bucket/log: a path must be on a file system"),
        ("run", {"log": "log", "folder": "s3://b/c", "command": TRAIN}, "--folder s3://b/c: a path must be on a file"),
    ],
)
def test_an_action_without_its_flags_is_refused(action, flags, message):
    with pytest.raises(InputError, match=message):
        commands(action, **flags)


@pytest.mark.parametrize("flag", ["name", "zone", "project"])
@pytest.mark.parametrize("value", ["", "my pod", "Pod", "--force", "pod-", "pöd", "pod\n", "1pod"])
def test_a_name_that_google_gives_nothing_is_refused(flag, value):
    """gcloud would take --name=--force for a flag of its own."""
    with pytest.raises(InputError, match=f"--{flag} {re.escape(repr(value))}: Google takes lower-case letters"):
        tpu(TpuArguments(action="stop", dry_run=True, **{**PLACE, flag: value}))
    with pytest.raises(InputError, match="63 of them at most"):
        tpu(TpuArguments(action="stop", dry_run=True, **{**PLACE, "name": "p" * 64}))


def test_the_project_of_an_organisation_is_taken():
    assert tpu(TpuArguments(action="stop", dry_run=True, project="example.com:mine-1", **PLACE))["commands"]


def test_a_dry_run_calls_nothing_and_prints_what_a_shell_takes(tmp_path, monkeypatch, capfd):
    stand_in(tmp_path, "gcloud", f"touch {tmp_path}/called")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    arguments = ["stop", "--name", "pod", "--zone", "us-east5-a", "--delete", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        program.run(tpu, example="", arguments=arguments)
    assert ended.value.code == 0
    printed = [shlex.split(line) for line in capfd.readouterr().err.splitlines()]
    assert printed[0][:7] == queued("ssh")
    assert printed[1] == [*queued("delete"), "--force", "--quiet"]
    assert not (tmp_path / "called").exists()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A gcloud that runs --command here, and a clone whose python waits for a signal."""
    stand_in(
        tmp_path, "gcloud", f'echo "$@" >> {tmp_path}/calls; for last; do :; done; exec bash -c "${{last#--command=}}"'
    )
    python = tmp_path / "clone" / ".venv" / "bin"
    python.mkdir(parents=True)
    ending = f"trap 'kill $waiting; echo saved >> {tmp_path}/saved; exit 3' TERM; sleep 300 & waiting=$!"
    stand_in(
        python,
        "python",
        f'printf "%s\\n" "$@" > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/arguments; {ending}; wait',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    if (tmp_path / ".crops_jax.pid").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((tmp_path / ".crops_jax.pid").read_text()), signal.SIGTERM)


def test_a_program_is_started_on_the_machines_once_and_stopped_with_a_checkpoint(machine):
    flags = {"log": str(machine / "my log"), "folder": str(machine / "clone"), "command": TRAIN}
    start = TpuArguments(action="run", **PLACE, **flags)
    tpu(start)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (machine / "arguments").exists() and time.monotonic() < deadline:
        os.sched_yield()
    given = (machine / "arguments").read_text().splitlines()
    assert_taken(given)
    assert "/shared/my records" in given
    assert len(list((machine / "my log").glob("*.log"))) == 1
    assert "--node=all --worker=all" in (machine / "calls").read_text()
    with pytest.raises(NamedFailure, match="gcloud compute tpus queued-resources ssh ended with status 2"):
        tpu(start)
    tpu(TpuArguments(action="stop", **PLACE))
    assert (machine / "saved").read_text() == "saved\n"
    tpu(TpuArguments(action="stop", **PLACE))  # nothing runs any more


def test_a_program_that_ends_at_once_and_a_folder_without_an_environment_are_reported(machine, capfd):
    flags = {"log": str(machine / "log"), "command": TRAIN}
    stand_in(machine / "clone" / ".venv" / "bin", "python", "echo no such records; exit 2")
    with pytest.raises(NamedFailure, match="ssh ended with status 2"):
        tpu(TpuArguments(action="run", **PLACE, **flags, folder=str(machine / "clone")))
    assert "no such records" in capfd.readouterr().err
    (machine / "empty").mkdir()
    with pytest.raises(NamedFailure, match="ssh ended with status 2"):
        tpu(TpuArguments(action="run", **PLACE, **flags, folder=str(machine / "empty")))
    assert f"{machine}/empty: no .venv/bin/python, run make setup there" in capfd.readouterr().err


def test_another_process_with_the_number_of_the_program_is_left_alone(machine):
    with subprocess.Popen(["sleep", "300"]) as other:
        (machine / ".crops_jax.pid").write_text(f"{other.pid}\n")
        tpu(TpuArguments(action="stop", **PLACE))
        assert other.poll() is None
        (machine / ".crops_jax.pid").unlink()
        other.kill()


def test_slices_that_cannot_be_reached_are_deleted_and_those_with_a_program_are_not(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stop = TpuArguments(action="stop", delete=True, **PLACE)
    calls = f'echo "$5" >> {tmp_path}/calls; if [ "$5" = delete ] || [ "$4" = delete ]; then exit 0; fi'
    stand_in(tmp_path, "gcloud", f"{calls}; echo node not found >&2; exit 1")
    assert len(tpu(stop)["commands"]) == 2
    assert "the machines could not be reached" in capfd.readouterr().err
    deleted = (tmp_path / "calls").read_text()
    stand_in(tmp_path, "gcloud", f"{calls}; echo process 7 still runs after 120 s; exit 1")
    with pytest.raises(NamedFailure, match="ssh ended with status 1"):
        tpu(stop)
    assert (tmp_path / "calls").read_text() == deleted + deleted.splitlines(keepends=True)[0]


def test_follow_reads_the_log_of_the_first_machine():
    (command,) = commands("follow", log="/shared/my log")
    assert command[:7] == queued("ssh")
    assert command[7:9] == ["--node=0", "--worker=0"]
    assert remote(command) == "tail -n 100 -F '/shared/my log'/$(hostname).log"


def test_without_gcloud_one_line_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="gcloud is not installed here; install it, or add --dry-run"):
        tpu(TpuArguments(action="stop", **PLACE))


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt-get install shellcheck)"
)
def test_shellcheck_finds_no_error_in_what_machines_run():
    started = commands("run", log="/shared/log", command=TRAIN) + commands("stop") + commands("follow", log="log")
    for command in started:
        # 2046 and 2086: a process number is one word.
        arguments = ["shellcheck", "--shell=bash", "--exclude=SC2046,SC2086", "-"]
        done = subprocess.run(arguments, input=remote(command), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
