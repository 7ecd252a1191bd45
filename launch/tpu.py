"""Creates Cloud TPU slices, runs a program on all of their machines, follows its log, and stops it."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from crops_jax import program
from crops_jax.errors import InputError, NamedFailure
from crops_jax.program.help_rules import FlagGroups
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
_PID = "$HOME/.crops_jax.pid"
# The file in which a machine writes what its program says.
_LOG = "$(hostname).log"
_STOP_SECONDS = 120
_FIRST_SECONDS = 5
"""The time for which run looks whether the program goes on."""
_STILL_RUNS = "still runs after"
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
    """run: the folder of a clone with its environment on every machine, from the home folder if it is relative."""
    log: str = ""
    """run and follow: the folder on each machine, or on a disk that all share, in which it writes HOSTNAME.log."""
    delete: bool = False
    """stop: whether the slices are deleted too, also where no machine can be reached any more."""
    dry_run: bool = False
    """Whether the commands are only printed, one a line, as a shell takes them."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "create": ("topology", "slices", "spot", "runtime", "startup_script"),
        "run": ("command", "folder", "log"),
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
            _call(command, or_unreachable=arguments.delete and command is not commands[-1])
    shown = {"action": arguments.action, "name": arguments.name, "dry_run": arguments.dry_run}
    return {**shown, "commands": [shlex.join(command) for command in commands]}


def _commands(arguments: TpuArguments) -> list[list[str]]:
    """Returns the commands of an action. Raises InputError when it lacks a flag, or has a value that none can take."""
    _check_names(arguments)
    if arguments.action == "create":
        return [_create(arguments)]
    if arguments.action == "run":
        return [_on_machines(arguments, _start(arguments), machines="all")]
    if arguments.action == "follow":
        return [_on_machines(arguments, f"tail -n 100 -F {_log_file(arguments)}", machines="0")]
    stop = _on_machines(arguments, _STOP, machines="all")
    return [stop, _queued(arguments, "delete", "--force", "--quiet")] if arguments.delete else [stop]


def _check_names(arguments: TpuArguments) -> None:
    """Raises InputError when Google gives nothing such a name, or when a folder of the machines is a bucket."""
    for flag, value in (("--name", arguments.name), ("--zone", arguments.zone), ("--project", arguments.project)):
        form = _PROJECT if flag == "--project" else _NAME
        if value is not None and not form.fullmatch(value):
            raise InputError(
                f"{flag} {value!r}: Google takes lower-case letters, digits and hyphens, with a letter first and no "
                "hyphen last, and 63 of them at most; correct it"
            )
    for flag, folder in (("--log", arguments.log), ("--folder", arguments.folder)):
        refuse_scheme(flag, folder)
        if folder.startswith("~"):
            raise InputError(
                f"{flag} {folder}: the machines do not expand ~; a relative path starts in their home folder"
            )
    if arguments.startup_script and not Path(arguments.startup_script).is_file():
        raise InputError(f"--startup-script {arguments.startup_script}: no such file")


def _create(arguments: TpuArguments) -> list[str]:
    from crops_jax.devices.tpu_topology import accelerator_type

    if not arguments.topology:
        raise InputError("launch.tpu create needs --topology, such as v5e:16x16")
    if arguments.slices < 1:
        raise InputError(f"--slices {arguments.slices}: there must be at least one slice")
    kind = accelerator_type(arguments.topology)
    generation, _, shape = arguments.topology.partition(":")
    nodes = [f"--node-count={arguments.slices}", f"--node-prefix={arguments.name}"]
    flags = nodes if arguments.slices > 1 else [f"--node-id={arguments.name}"]
    # The number of chips gives the shape of a slice with two axes, and not that of one with three.
    has_three_axes = shape.count("x") == 2
    flags += [f"--type={generation}", f"--topology={shape}"] if has_three_axes else [f"--accelerator-type={kind}"]
    flags.append(f"--runtime-version={arguments.runtime or _RUNTIMES[generation]}")
    if arguments.spot:
        flags.append("--spot")
    if arguments.startup_script:
        flags.append(f"--metadata-from-file=startup-script={arguments.startup_script}")
    return _queued(arguments, "create", *flags)


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


def _log_file(arguments: TpuArguments) -> str:
    if not arguments.log:
        raise InputError(f"launch.tpu {arguments.action} needs --log, a folder for the logs of the machines")
    return f"{shlex.quote(arguments.log)}/{_LOG}"


def _on_machines(arguments: TpuArguments, script: str, *, machines: Literal["all", "0"]) -> list[str]:
    return _queued(arguments, "ssh", f"--node={machines}", f"--worker={machines}", f"--command={script}")


def _queued(arguments: TpuArguments, verb: str, *flags: str) -> list[str]:
    place = [f"--zone={arguments.zone}", *([f"--project={arguments.project}"] if arguments.project else [])]
    return ["gcloud", "compute", "tpus", "queued-resources", verb, arguments.name, *place, *flags]


def _call(command: list[str], *, or_unreachable: bool = False) -> None:
    """Runs a command. Raises InputError when it is not installed, and NamedFailure when it fails.

    or_unreachable: whether the command may fail because no machine can be reached, as those of a slice that was taken
    away. A program that still runs is a failure nevertheless.
    """
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]} is not installed here; install it, or add --dry-run to see the commands")
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if or_unreachable else None)
    said = done.stdout or ""
    print(said, end="", file=sys.stderr, flush=True)
    if not done.returncode:
        return
    if not or_unreachable or _STILL_RUNS in said:
        raise NamedFailure(f"{' '.join(command[:5])} ended with status {done.returncode}; its message stands above")
    print("the machines could not be reached, so no program was stopped there", file=sys.stderr, flush=True)


if __name__ == "__main__":
    program.run(tpu, example="python -m launch.tpu create --name pod --zone us-east5-a --topology v5e:16x16 --dry-run")
