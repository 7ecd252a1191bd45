"""launch.tpu with a stand-in for gcloud, which runs what it would run on a machine in a shell of this one."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from crops_jax import program
from crops_jax.devices.tpu_topology import accelerator_type
from crops_jax.errors import InputError, NamedFailure
from launch import tpu as tpu_program
from launch.tpu import TpuArguments, tpu
from tests.launch.test_scripts import assert_taken, stand_in
from tests.pseudo_terminal import on_terminal

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
    kind = ["--accelerator-type=v5p-32", "--runtime-version=v2-alpha-tpuv5"]
    nodes = ["--project=mine", "--node-count=2", "--node-prefix=pod"]
    assert command == [*queued("create"), *nodes, *kind, "--spot", f"--metadata-from-file=startup-script={script}"]


def test_v4_is_asked_for_by_its_shape_and_all_others_by_their_number():
    """gcloud takes v2, v3 and v4 in --type. A number of chips of v4 is of several shapes."""
    (command,) = commands("create", topology="v4:4x4x32")
    assert command[8:] == ["--type=v4", "--topology=4x4x32", "--runtime-version=tpu-ubuntu2204-base"]
    for topology, kind in (("v5p:2x2x2", "v5p-16"), ("v5e:4x4", "v5litepod-16"), ("v6e:2x4", "v6e-8")):
        (command,) = commands("create", topology=topology)
        assert command[8] == f"--accelerator-type={kind}"
        assert not [word for word in command if word.startswith(("--type", "--topology"))]


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_the_parser_of_gcloud_takes_the_commands(tmp_path):
    """Without an account, gcloud ends with status 1 after it has read the arguments, and 2 when it refuses them."""
    script = tmp_path / "a,b.sh"
    script.touch()
    given = {"slices": 2, "spot": True, "startup_script": str(script)}
    commanded = commands("create", topology="v5p:2x2x2", project="nobody", **given)
    commanded += commands("create", topology="v4:2x2x2", project="nobody")
    commanded += commands("run", log="log", command=TRAIN, project="nobody") + commands("stop", project="nobody")
    nobody = {"CONFIG": str(tmp_path), "CORE_CHECK_GCE_METADATA": "false", "CORE_DISABLE_PROMPTS": "true"}
    nobody["API_ENDPOINT_OVERRIDES_TPU"] = "http://127.0.0.1:9/"
    environment = {**os.environ, **{f"CLOUDSDK_{name}": value for name, value in nobody.items()}}
    for command in commanded:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 1, done.stderr
        assert "Unable to read file" not in done.stderr


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5p:4x4x32", "Google gives them the shape 8x8x8; ask for v5p:8x8x8"),
        ("v5p:1x1x1", "Google offers no such slice"),
        ("v4:3x5x7", "Google offers no such slice"),
    ],
)
def test_a_slice_that_google_does_not_offer_is_refused(topology, message):
    with pytest.raises(InputError, match=f"--topology {topology}: .*{message}"):
        commands("create", topology=topology)


@pytest.mark.parametrize("name", ["a,b.sh", "a:b,c.sh", ":,::,.sh"])
def test_a_startup_script_with_commas_is_one_file_for_gcloud(tmp_path, name):
    script = tmp_path / name
    script.touch()
    (command,) = commands("create", topology="v5e:2x2", startup_script=str(script))
    empty, delimiter, item = command[-1].removeprefix("--metadata-from-file=").split("^", 2)
    assert (empty, item) == ("", f"startup-script={script}")
    assert delimiter
    assert delimiter not in item


def test_the_names_of_several_nodes_have_room_for_their_numbers():
    longest = TpuArguments(action="create", name="p" * 61, zone="z", topology="v5e:2x2", slices=10, dry_run=True)
    assert tpu(longest)["commands"]
    for name, slices in (("p" * 61, 11), ("p" * 62, 2), ("p" * 63, 2)):
        with pytest.raises(InputError, match=f"NAME-{slices - 1}, of 63 characters at most; choose a shorter name"):
            tpu(TpuArguments(action="create", name=name, zone="z", topology="v5e:2x2", slices=slices, dry_run=True))
    assert tpu(TpuArguments(action="create", name="p" * 63, zone="z", topology="v5e:2x2", dry_run=True))["commands"]


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
        ("follow", {"log": "~/log"}, "--log ~/log: the machines do not expand ~; a relative path starts in --folder"),
        ("follow", {"log": "a\nb"}, "--log 'a.nb' has control characters"),
        ("create", {"topology": "v5e:2x2", "startup_script": "a\tb"}, "--startup-script 'a.tb' has control characters"),
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


@pytest.mark.parametrize(
    ("action", "flags", "message"),
    [
        ("run", {"delete": True, "slices": 0}, "--slices (a flag of create) and --delete (a flag of stop); leave out"),
        ("stop", {"topology": "v5e:banana"}, "--topology (a flag of create); leave out flags of other actions"),
        ("stop", {"folder": "clone"}, "--folder (a flag of run and follow)"),
        ("create", {"command": TRAIN, "topology": "v5e:2x2"}, "--command (a flag of run)"),
        ("follow", {"log": "log", "startup_script": "x"}, "--startup-script (a flag of create)"),
    ],
)
def test_a_flag_of_another_action_is_refused(action, flags, message):
    with pytest.raises(InputError, match=re.escape(f"launch.tpu {action} does not take {message}")):
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
    with pytest.raises(InputError, match="gcloud compute tpus queued-resources ssh ended with status 2; correct what"):
        tpu(start)
    tpu(TpuArguments(action="stop", **PLACE))
    assert (machine / "saved").read_text() == "saved\n"
    tpu(TpuArguments(action="stop", **PLACE))  # nothing runs any more


def test_a_program_that_ends_at_once_and_a_folder_without_an_environment_are_reported(machine, capfd):
    flags = {"log": str(machine / "log"), "command": TRAIN}
    stand_in(machine / "clone" / ".venv" / "bin", "python", "echo no such records; exit 2")
    with pytest.raises(InputError, match="ssh ended with status 2"):
        tpu(TpuArguments(action="run", **PLACE, **flags, folder=str(machine / "clone")))
    assert "no such records" in capfd.readouterr().err
    stand_in(machine / "clone" / ".venv" / "bin", "python", "echo no memory; exit 4")
    with pytest.raises(NamedFailure, match="ssh ended with status 4"):
        tpu(TpuArguments(action="run", **PLACE, **flags, folder=str(machine / "clone")))
    (machine / "empty").mkdir()
    with pytest.raises(InputError, match="ssh ended with status 2"):
        tpu(TpuArguments(action="run", **PLACE, **flags, folder=str(machine / "empty")))
    assert f"{machine}/empty: no .venv/bin/python, run make setup there" in capfd.readouterr().err


def test_follow_shows_the_file_that_run_writes_where_the_folders_are_relative(machine, capfd):
    stand_in(machine / "clone" / ".venv" / "bin", "python", "echo in the log; exit 4")
    stand_in(machine, "tail", 'for last; do :; done; cat "$last"')  # it ends
    flags = {"log": "my log", "folder": "clone"}
    # Every machine starts in the home folder.
    gcloud = (machine / "gcloud").read_text().replace("; exec bash", "; cd; exec bash")
    (machine / "gcloud").write_text(gcloud)
    with pytest.raises(NamedFailure):
        tpu(TpuArguments(action="run", **PLACE, **flags, command=TRAIN))
    assert [file.parent.parent.name for file in machine.rglob("my log/*.log")] == ["clone"]
    capfd.readouterr()
    tpu(TpuArguments(action="follow", **PLACE, **flags))
    assert capfd.readouterr().out == "in the log\n"
    with pytest.raises(InputError, match="ssh ended with status 2"):
        tpu(TpuArguments(action="follow", **PLACE, log="my log", folder="none"))
    # An absolute one is found without the folder.
    tpu(TpuArguments(action="follow", **PLACE, log=str(machine / "clone" / "my log"), folder="none"))
    assert capfd.readouterr().out == "in the log\n"


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
    said = capfd.readouterr().err
    assert "node not found" in said
    assert "machines could not be reached, so no program was stopped on them" in said
    deleted = (tmp_path / "calls").read_text()
    stand_in(tmp_path, "gcloud", f"{calls}; echo process 7 still runs after 120 s; exit 1")
    with pytest.raises(NamedFailure, match="ssh ended with status 1"):
        tpu(stop)
    assert (tmp_path / "calls").read_text() == deleted + deleted.splitlines(keepends=True)[0]


LEFT_OUT = "echo WARNING: Could not prepare all 2 nodes, attempting to ssh into the rest. >&2"
"""The warning of gcloud for slices that do not exist yet, or were taken away. It ends with status 0 nevertheless."""


def test_slices_that_gcloud_leaves_out_are_a_failure_and_are_deleted_nevertheless(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stand_in(tmp_path, "gcloud", f'echo "$4" >> {tmp_path}/calls; [ "$4" = delete ] || {LEFT_OUT}')
    describe = "gcloud compute tpus queued-resources describe pod --zone=us-east5-a shows the state ACTIVE"
    with pytest.raises(NamedFailure, match=f"{describe}, call launch.tpu stop, and then the same command again"):
        tpu(TpuArguments(action="run", **PLACE, log="log", command=TRAIN))
    assert "Could not prepare all 2 nodes" in capfd.readouterr().err
    for action, flags in (("stop", {}), ("follow", {"log": "log"})):
        with pytest.raises(NamedFailure, match=f"{describe}, call the same command again"):
            tpu(TpuArguments(action=action, **PLACE, **flags))
    tpu(TpuArguments(action="stop", delete=True, **PLACE))
    assert (tmp_path / "calls").read_text().split() == ["ssh"] * 4 + ["delete"]
    assert "machines could not be reached" in capfd.readouterr().err


@pytest.mark.parametrize("action", ["run", "stop", "follow"])
def test_gcloud_does_not_hide_the_slices_that_it_leaves_out(action):
    """The property core/verbosity can hide warnings."""
    flags = {"run": {"log": "log", "command": TRAIN}, "follow": {"log": "log"}, "stop": {}}[action]
    (command,) = commands(action, **flags)
    assert "--verbosity=warning" in command


def test_arguments_that_gcloud_refuses_have_status_2_and_delete_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stand_in(tmp_path, "gcloud", f'echo "$4" >> {tmp_path}/calls; echo Invalid choice >&2; exit 2')
    for given in ({"action": "create", "topology": "v5e:2x2"}, {"action": "stop", "delete": True}):
        with pytest.raises(InputError, match="ended with status 2; correct what its message above names"):
            tpu(TpuArguments(**PLACE, **given))
        assert "Invalid choice" in capfd.readouterr().err
    assert (tmp_path / "calls").read_text().split() == ["create", "ssh"]


def test_a_gcloud_that_cannot_be_started_is_named(tmp_path, monkeypatch):
    (tmp_path / "gcloud").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=rf"{tmp_path}/gcloud cannot be started \(Exec format error\); install gcloud"):
        tpu(TpuArguments(action="stop", **PLACE))


def test_a_process_that_gcloud_leaves_behind_is_not_waited_for(tmp_path, monkeypatch):
    """ssh can leave one that shares connections, which keeps standard error open."""
    stand_in(tmp_path, "gcloud", f"sleep 300 & echo $! > {tmp_path}/left; {LEFT_OUT}; exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(tpu_program, "_LISTEN_SECONDS", 0.5)
    try:
        with pytest.raises(NamedFailure, match="left out the slices"):
            tpu(TpuArguments(action="stop", **PLACE))
    finally:
        os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


def test_gcloud_asks_its_questions_on_a_terminal(tmp_path):
    asks = 'printf "Enable it (y/N)? " >&2; read answer; echo "answered $answer"; exit 1'
    stand_in(tmp_path, "gcloud", f"[ -t 0 ] && [ -t 2 ] && {{ {asks}; }}; echo no terminal; exit 1")
    command = [sys.executable, "-m", "launch.tpu", "create", "--name", "pod", "--zone", "z", "--topology", "v5e:2x2"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    session = on_terminal(command, answers={"Enable it (y/N)?": b"y\n"}, environment=path)
    assert "answered y" in session.written
    assert session.status == 4


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
    started += commands("follow", log="/log")
    for command in started:
        # 2046 and 2086: a process number is one word.
        arguments = ["shellcheck", "--shell=bash", "--exclude=SC2046,SC2086", "-"]
        done = subprocess.run(arguments, input=remote(command), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
