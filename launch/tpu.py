"""Creates Cloud TPU slices, runs a program on all of their machines, follows its log, and stops it."""

import codecs
import contextlib
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from crops_jax import program
from crops_jax.errors import InputError, NamedFailure
from crops_jax.program.help_rules import FlagGroups
from crops_jax.program.terminal import is_terminal
from crops_jax.storage import LocalPath
from crops_jax.storage.schemes import refuse_scheme
from launch.steps.arguments import words_of

# The image of the machines of each generation, as Google names them.
_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
_PROGRAMS = ("launch.train", "launch.embed")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_PROJECT = re.compile(r"[a-z][-.:a-z0-9]*[a-z0-9]")
"""A project of an organisation has the name of its domain before it: example.com:mine."""
_NAME_LENGTH = 63
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PID = "$HOME/.crops_jax.pid"
# The file in which a machine writes what its program says.
_LOG = "$(hostname).log"
_STOP_SECONDS = 120
_FIRST_SECONDS = 5
"""The time for which run looks whether the program goes on."""
_STILL_RUNS = "still runs after"
_UNPREPARED = "Could not prepare all"
"""The words of the warning with which gcloud leaves out the slices that are not ready, and ends with status 0."""
_LISTEN_SECONDS = 5
"""The time after the end of gcloud in which the rest of what it said is read."""
# Sets pid to the number of the program that was started here, if it lives. After a restart of the machine, another
# process can have its number.
_FIND = (
    f'pid=$(cat {_PID} 2>/dev/null); [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && '
    "{ ! [ -r /proc/$pid/cmdline ] || tr '\\0' ' ' < /proc/$pid/cmdline | grep -q -e '-m launch[.]'; }"
)


@dataclass(frozen=True, kw_only=True)
class TpuArguments:
    action: Annotated[Literal["create", "run", "follow", "stop"], tyro.conf.Positional]
    """The action: create asks for the slices, run starts a program on all machines, follow shows the log of the first
    machine, and stop ends the program, with a checkpoint."""
    name: str
    """The name of the queued resource, and of its node if there is one slice."""
    zone: str
    """The zone, such as us-east5-a."""
    project: str | None = None
    """The project. The default is that of gcloud."""
    topology: str = ""
    """create: the slice, such as v5e:16x16."""
    slices: int = 1
    """create: the number of such slices."""
    spot: bool = False
    """create: whether the slices are spot capacity, which costs less and can be taken away at any time."""
    runtime: str | None = None
    """create: the image of the machines. The default is the one that Google names for the generation."""
    startup_script: LocalPath | None = None
    """create: a file with commands that each machine runs when it starts, such as mounting the shared disk."""
    command: str = ""
    """run: the program with its arguments, as one text: "launch.train minilm --records RECORDS --output RUN"."""
    folder: str = "crops_jax"
    """run and follow: the folder of a clone with its environment on every machine, from the home folder if it is
    relative."""
    log: str = ""
    """run and follow: the folder on each machine, or on a disk that all share, in which it writes HOSTNAME.log. A
    relative path starts in --folder."""
    delete: bool = False
    """stop: whether the slices are deleted too, also where no machine can be reached any more."""
    dry_run: bool = False
    """Whether the commands are only printed, one a line, as a shell takes them."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "create": ("topology", "slices", "spot", "runtime", "startup_script"),
        "run": ("command",),
        "run and follow": ("folder", "log"),
        "stop": ("delete",),
    }


def tpu(arguments: TpuArguments) -> dict[str, Any]:
    """Creates TPU slices as a queued resource, runs a program on all of their machines, follows it, or stops it.

    Every action is one or two commands of gcloud, which are printed before they run; with --dry-run nothing else
    happens. A program that runs does not depend on this machine; one that ends within a few seconds is reported. The
    signal of stop lets it save a checkpoint, as a preemption does; run with the same command goes on from it.
    """
    commands = _commands(arguments)
    for command in commands:
        print(shlex.join(command), file=sys.stderr, flush=True)
        if not arguments.dry_run:
            _call(arguments, command)
    shown = {"action": arguments.action, "name": arguments.name, "dry_run": arguments.dry_run}
    return {**shown, "commands": [shlex.join(command) for command in commands]}


def _commands(arguments: TpuArguments) -> list[list[str]]:
    """Returns the commands of an action. Raises InputError when it lacks a flag, or has a value that none can take."""
    _check_action(arguments)
    _check_names(arguments)
    if arguments.action == "create":
        return [_create(arguments)]
    if arguments.action == "run":
        return [_on_machines(arguments, _start(arguments), machines="all")]
    if arguments.action == "follow":
        return [_on_machines(arguments, _follow(arguments), machines="0")]
    stop = _on_machines(arguments, _STOP, machines="all")
    return [stop, _queued(arguments, "delete", "--force", "--quiet")] if arguments.delete else [stop]


def _check_action(arguments: TpuArguments) -> None:
    """Raises InputError when a flag of other actions was given, which would have no effect."""
    wrong = []
    for actions, names in arguments.FLAG_GROUPS.items():
        if arguments.action not in actions.split(" and "):
            wrong += [(name.replace("_", "-"), actions) for name in names if _is_given(arguments, name)]
    if wrong:
        shown = " and ".join(f"--{flag} (a flag of {actions})" for flag, actions in wrong)
        raise InputError(f"launch.tpu {arguments.action} does not take {shown}; leave out flags of other actions")


def _is_given(arguments: TpuArguments, name: str) -> bool:
    (default,) = (field.default for field in fields(arguments) if field.name == name)
    return getattr(arguments, name) != default


def _check_names(arguments: TpuArguments) -> None:
    """Raises InputError when Google gives nothing such a name, or when a folder of the machines is a bucket."""
    for flag, value in (("--name", arguments.name), ("--zone", arguments.zone), ("--project", arguments.project)):
        form = _PROJECT if flag == "--project" else _NAME
        if value is not None and not form.fullmatch(value):
            raise InputError(
                f"{flag} {value!r}: Google takes lower-case letters, digits and hyphens, with a letter first and no "
                "hyphen last, and 63 of them at most; correct it"
            )
    for flag, folder, start in (
        ("--log", arguments.log, "--folder"),
        ("--folder", arguments.folder, "the home folder"),
    ):
        refuse_scheme(flag, folder)
        if folder.startswith("~"):
            raise InputError(f"{flag} {folder}: the machines do not expand ~; a relative path starts in {start}")
    for name in ("log", "folder", "startup_script", "runtime"):
        if _CONTROL.search(value := getattr(arguments, name) or ""):
            raise InputError(f"--{name.replace('_', '-')} {value!r} has control characters; correct it")
    if arguments.startup_script and not Path(arguments.startup_script).is_file():
        raise InputError(f"--startup-script {arguments.startup_script}: no such file")


def _create(arguments: TpuArguments) -> list[str]:
    from crops_jax.devices.tpu_topology import offered_type

    if not arguments.topology:
        raise InputError("launch.tpu create needs --topology, such as v5e:16x16")
    if arguments.slices < 1:
        raise InputError(f"--slices {arguments.slices}: there must be at least one slice")
    if arguments.slices > 1 and len(f"{arguments.name}-{arguments.slices - 1}") > _NAME_LENGTH:
        raise InputError(
            f"--name {arguments.name}: the nodes of {arguments.slices} slices are NAME-0 to "
            f"NAME-{arguments.slices - 1}, of {_NAME_LENGTH} characters at most; choose a shorter name"
        )
    kind = offered_type(arguments.topology)
    generation, _, shape = arguments.topology.partition(":")
    nodes = [f"--node-count={arguments.slices}", f"--node-prefix={arguments.name}"]
    flags = nodes if arguments.slices > 1 else [f"--node-id={arguments.name}"]
    # Of the generations here, gcloud takes v4 alone in --type. The number of chips gives the shape of the others.
    flags += [f"--type={generation}", f"--topology={shape}"] if generation == "v4" else [f"--accelerator-type={kind}"]
    flags.append(f"--runtime-version={arguments.runtime or _RUNTIMES[generation]}")
    if arguments.spot:
        flags.append("--spot")
    if arguments.startup_script:
        flags.append(f"--metadata-from-file={_as_one_item(f'startup-script={arguments.startup_script}')}")
    return _queued(arguments, "create", *flags)


def _as_one_item(text: str) -> str:
    """Returns a text so that gcloud does not split it at commas: with a delimiter that it does not have.

    `gcloud topic escaping` describes this.
    """
    if "," not in text:
        return text
    delimiter = ":"
    while delimiter in text:
        delimiter += ":"
    return f"^{delimiter}^{text}"


def _start(arguments: TpuArguments) -> str:
    """Returns what a machine runs to start the program: it goes on when the connection ends."""
    words = words_of(arguments.command)
    if not words or words[0] not in _PROGRAMS:
        raise InputError(
            f"launch.tpu run needs --command with one of {', '.join(_PROGRAMS)} and its arguments, found "
            f"{arguments.command!r}; the other programs run in one process"
        )
    log, folder = _log_file(arguments), shlex.quote(arguments.folder)
    return (
        f"if {_FIND}; then echo 'a program runs on this machine; call launch.tpu stop first' >&2; exit 2; fi; "
        f"cd {folder} && {{ [ -x .venv/bin/python ] || "
        f"{{ echo {folder}: no .venv/bin/python, run make setup there >&2; exit 2; }}; }} && "
        f"mkdir -p {shlex.quote(arguments.log)} || exit 2; "
        f"nohup .venv/bin/python -m {shlex.join(words)} >> {log} 2>&1 < /dev/null & pid=$!; echo $pid > {_PID}; "
        f"for _ in $(seq {_FIRST_SECONDS}); do sleep 1; kill -0 $pid 2>/dev/null || {{ wait $pid; status=$?; "
        f"tail -n 5 {log} >&2; exit $status; }}; done"
    )


_STOP = (
    f"{_FIND} || exit 0; kill -TERM $pid 2>/dev/null || exit 0; "
    f"for _ in $(seq {_STOP_SECONDS}); do kill -0 $pid 2>/dev/null || exit 0; sleep 1; done; "
    f'echo "process $pid {_STILL_RUNS} {_STOP_SECONDS} s"; exit 4'
)


def _follow(arguments: TpuArguments) -> str:
    """Returns what a machine runs to show the file that _start writes. An absolute one needs no --folder."""
    show = f"tail -n 100 -F {_log_file(arguments)}"
    return show if arguments.log.startswith("/") else f"cd {shlex.quote(arguments.folder)} || exit 2; {show}"


def _log_file(arguments: TpuArguments) -> str:
    if not arguments.log:
        raise InputError(f"launch.tpu {arguments.action} needs --log, a folder for the logs of the machines")
    return f"{shlex.quote(arguments.log)}/{_LOG}"


def _on_machines(arguments: TpuArguments, script: str, *, machines: Literal["all", "0"]) -> list[str]:
    # Without the warnings of gcloud, nothing says that it leaves out a slice.
    flags = [f"--node={machines}", f"--worker={machines}", "--verbosity=warning", f"--command={script}"]
    return _queued(arguments, "ssh", *flags)


def _queued(arguments: TpuArguments, verb: str, *flags: str) -> list[str]:
    place = [f"--zone={arguments.zone}", *([f"--project={arguments.project}"] if arguments.project else [])]
    return ["gcloud", "compute", "tpus", "queued-resources", verb, arguments.name, *place, *flags]


def _call(arguments: TpuArguments, command: list[str]) -> None:
    """Runs a command. Raises InputError when it cannot be started or has status 2, and NamedFailure when it fails.

    Status 2 is that of gcloud's own parser. gcloud ends a command on machines with the status of one of those that
    failed, and theirs is 2 where the folder is missing, where a program runs, and where the program refuses its
    arguments. When the slices are deleted, no machine need be reached, since they may have been taken away; a program
    that still runs is a failure nevertheless.
    """
    to_delete = arguments.delete and command[4] == "ssh"
    status, said = _run(command, with_output=to_delete)
    left_out = _UNPREPARED in said
    if not status and not left_out:
        return
    called = " ".join(command[:5])
    if status == InputError.status:
        raise InputError(f"{called} ended with status {status}; correct what its message above names")
    if to_delete and _STILL_RUNS not in said:
        print("machines could not be reached, so no program was stopped on them", file=sys.stderr, flush=True)
        return
    if status:
        raise NamedFailure(f"{called} ended with status {status}; its message stands above")
    again = "call launch.tpu stop, and then" if arguments.action == "run" else "call"
    raise NamedFailure(
        f"{called} left out the slices that are not ready, perhaps all of them. When "
        f"{shlex.join(_queued(arguments, 'describe'))} shows the state ACTIVE, {again} the same command again; a "
        "slice that was taken away is given back with launch.tpu stop --delete"
    )


def _run(command: list[str], *, with_output: bool) -> tuple[int, str]:
    """Runs a command and returns its status and its messages, which stand on standard error at once.

    If standard error is a terminal here, it is one there too, because gcloud asks questions on terminals only.

    Args:
      command: the program and its arguments.
      with_output: whether its standard output counts as messages. Otherwise it is that of this program.

    Raises InputError when the program is not installed or cannot be started.
    """
    if (program_file := shutil.which(command[0])) is None:
        raise InputError(f"{command[0]} is not installed here; install it, or add --dry-run to see the commands")
    heard, given = pty.openpty() if is_terminal(sys.stderr) else os.pipe()
    said: list[str] = []

    def listen() -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # A terminal ends with an error.
        with open(heard, "rb", buffering=0) as stream, contextlib.suppress(OSError):
            while part := stream.read(1 << 16):
                said.append(decoder.decode(part))
                print(said[-1], end="", file=sys.stderr, flush=True)

    try:
        process = subprocess.Popen([program_file, *command[1:]], stdout=given if with_output else None, stderr=given)
    except OSError as error:
        os.close(heard)
        raise InputError(
            f"{program_file} cannot be started ({error.strerror}); install gcloud anew, or add --dry-run to see the "
            "commands"
        ) from error
    finally:
        os.close(given)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    listener.join(_LISTEN_SECONDS)
    return status, "".join(said)


if __name__ == "__main__":
    program.run(tpu, example="python -m launch.tpu create --name pod --zone us-east5-a --topology v5e:16x16 --dry-run")
