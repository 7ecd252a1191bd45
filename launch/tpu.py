"""Creates Cloud TPU slices, runs a program on all of their machines, follows its log, and stops it."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
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
    """run: the folder of a clone with its environment on every machine."""
    log: str = ""
    """run and follow: the folder on the shared disk in which each machine writes its log, HOSTNAME.log."""
    delete: bool = False
    """stop: whether the slices are deleted too."""
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
    happens. A program that runs does not depend on this machine, and writes its log to a disk that all machines share.
    The signal of stop lets it save a checkpoint, as a preemption does; run with the same command goes on from it.
    """
    commands = _commands(arguments)
    for command in commands:
        print(shlex.join(command), file=sys.stderr, flush=True)
        if not arguments.dry_run:
            _call(command)
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


def _create(arguments: TpuArguments) -> list[str]:
    from crops_jax.devices.tpu_topology import accelerator_type

    if not arguments.topology:
        raise InputError("launch.tpu create needs --topology, such as v5e:16x16")
    if arguments.slices < 1:
        raise InputError(f"--slices {arguments.slices}: there must be at least one slice")
    kind = accelerator_type(arguments.topology)
    runtime = arguments.runtime or _RUNTIMES[arguments.topology.partition(":")[0]]
    nodes = [f"--node-count={arguments.slices}", f"--node-prefix={arguments.name}"]
    flags = nodes if arguments.slices > 1 else [f"--node-id={arguments.name}"]
    flags += [f"--accelerator-type={kind}", f"--runtime-version={runtime}"]
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
    log = _log_file(arguments)
    return (
        f"if kill -0 $(cat {_PID} 2>/dev/null) 2>/dev/null; "
        "then echo 'a program runs on this machine; call launch.tpu stop first' >&2; exit 2; fi; "
        f"cd {shlex.quote(arguments.folder)} && mkdir -p {shlex.quote(arguments.log)} && "
        f"{{ nohup .venv/bin/python -m {shlex.join(words)} >> {log} 2>&1 < /dev/null & echo $! > {_PID}; }}"
    )


_STOP = (
    f"pid=$(cat {_PID} 2>/dev/null) && kill -TERM $pid 2>/dev/null || exit 0; "
    f"for _ in $(seq {_STOP_SECONDS}); do kill -0 $pid 2>/dev/null || exit 0; sleep 1; done; "
    f'echo "process $pid still runs after {_STOP_SECONDS} s" >&2; exit 4'
)


def _log_file(arguments: TpuArguments) -> str:
    if not arguments.log:
        raise InputError(f"launch.tpu {arguments.action} needs --log, a folder that all machines share")
    return f"{shlex.quote(arguments.log)}/{_LOG}"


def _on_machines(arguments: TpuArguments, script: str, *, machines: Literal["all", "0"]) -> list[str]:
    return _queued(arguments, "ssh", f"--node={machines}", f"--worker={machines}", f"--command={script}")


def _queued(arguments: TpuArguments, verb: str, *flags: str) -> list[str]:
    place = [f"--zone={arguments.zone}", *([f"--project={arguments.project}"] if arguments.project else [])]
    return ["gcloud", "compute", "tpus", "queued-resources", verb, arguments.name, *place, *flags]


def _call(command: list[str]) -> None:
    """Runs a command. Raises InputError when it is not installed, and NamedFailure when it fails."""
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]} is not installed here; install it, or add --dry-run to see the commands")
    if status := subprocess.run(command, check=False).returncode:
        raise NamedFailure(f"{' '.join(command[:5])} ended with status {status}; its message stands above")


if __name__ == "__main__":
    program.run(tpu, example="python -m launch.tpu create --name pod --zone us-east5-a --topology v5e:16x16 --dry-run")
