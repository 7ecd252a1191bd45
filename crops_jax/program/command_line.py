"""Runs a program of this project: its arguments, its outcome line and its exit status.

A program is a frozen dataclass of arguments and a function from it to its outcome, a dictionary:

    if __name__ == "__main__":
        program.run(mine, example="python -m data.mine --logs logs --output labels")

The outcome is printed as one line of JSON, the last line on standard output. Where standard output is a terminal, it is
a short table with the next commands instead, unless --json is given. All other output goes to standard error.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from crops_jax.devices import cluster_environment, notices, platforms, processes
from crops_jax.errors import AnotherProcessFailed, InputError, Interrupted, NamedFailure, explained
from crops_jax.program.arguments import DeviceFlags, OutputFlags, parse_call
from crops_jax.program.outcome import next_commands, outcome_table
from crops_jax.program.place import INTERRUPTED, place_in_chain
from crops_jax.program.progress import say
from crops_jax.program.terminal import columns, is_terminal
from crops_jax.storage import names
from crops_jax.storage.staging import staged


def run(
    function: Callable[[Any], dict[str, Any]],
    *,
    example: str,
    then: Sequence[str] = (),
    device: bool = False,
    table: bool = True,
    arguments: Sequence[str] | None = None,
    uses_devices: bool = False,
) -> NoReturn:
    """Runs `function` on arguments parsed from the command line, and exits.

    The exit status is 0 when the program is done, 2 for wrong input or arguments, 3 when it was interrupted and can be
    resumed, and 4 for a named failure (see crops_jax.errors). Any other exception is a defect and passes through.

    Args:
      function: takes one parameter, annotated with a dataclass of arguments. Its docstring is the help text. When the
        dataclass has a field `config: ConfigArgument`, the first positional argument names a configuration (see
        `load_config`), and flags override its fields: `--optimizer.learning-rate 1e-5`.
      example: one line for --help.
      then: the commands that come next, which a terminal shows; `crops_jax.program.outcome.next_commands` takes them.
      device: whether the program computes with JAX, and has the flag --device therefore.
      table: whether a terminal shows the outcome as a table; False for programs that print it themselves.
      arguments: the command line, by default sys.argv[1:].
      uses_devices: whether the program computes on accelerators. If not, it stays on the CPU of a machine whose TPU
        chips belong to a slice of several machines.
    """
    if not uses_devices:
        cluster_environment.leave_shared_tpu(os.environ)
    given = list(sys.argv[1:] if arguments is None else arguments)
    with _stdout_for_outcome_only() as stdout:
        sys.exit(_status(function, given, stdout, example=example, then=then, device=device, table=table))


def _status(
    function: Callable,
    given: list[str],
    stdout: "_Stdout",
    *,
    example: str,
    then: Sequence[str],
    device: bool,
    table: bool,
) -> int:
    received: list[BaseException] = []
    previous = signal.signal(signal.SIGTERM, _raising(Interrupted(_TERMINATED), received))
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a chain ignores it for its programs
        signal.signal(signal.SIGINT, _raising(_CtrlC(), received))
    previous_hook, sys.unraisablehook = sys.unraisablehook, _raises_again(sys.unraisablehook, received)
    noticing = notices.watch(os.environ)
    try:
        check_encoding(given, sys.getfilesystemencoding())
        arguments, flags = parse_call(function, given, example=example, device=device)
        _prepare_jax(flags)
        with staged(arguments) as local_arguments:
            outcome = names.shown_in(function(local_arguments))
        # Among several processes, process 0 prints the outcome for all.
        if processes.current().is_first:
            if flags.json or not stdout.is_terminal:
                stdout.write(json.dumps(outcome, ensure_ascii=False, default=str))
            else:
                lines = outcome_table(outcome, width=stdout.columns) if table else []
                stdout.write("\n".join([*lines, *next_commands(then, arguments, outcome)]))
        return 0
    except AnotherProcessFailed as error:
        return error.status
    except BrokenPipeError:
        return NamedFailure.status
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        # Native code may raise its own error in place of the signal's, such as DuckDB with "Query interrupted".
        explanation = explained(received[0] if received else error)
        if explanation is None:
            raise
        status, message = explanation
        if status == Interrupted.status:
            if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process without a traceback
            if place_in_chain() is not None:
                stdout.write(json.dumps({INTERRUPTED: names.shown(message)}, ensure_ascii=False))
                return status
        say(f"error: {message}")
        return status
    finally:
        noticing.set()
        names.forget()
        sys.unraisablehook = previous_hook
        signal.signal(signal.SIGTERM, previous)


def _prepare_jax(flags: OutputFlags) -> None:
    """Makes JAX compute where the user wants it to, before it creates its devices."""
    if isinstance(flags, DeviceFlags):
        if flags.device is not None:
            alone = cluster_environment.membership(os.environ, looks_for_tpu=lambda: False) is None
            platforms.insist_on(flags.device, os.environ, alone=alone)
        elif warning := platforms.unused_gpu(os.environ):
            say(warning)
    platforms.skip_absent_tpu(os.environ)


class _Stdout:
    """The standard output of the program, on which only its outcome is written.

    Attributes:
      is_terminal: whether a person reads it.
      columns: the number of columns that a line may have.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_terminal, self.columns = is_terminal(descriptor), columns(descriptor)

    def write(self, text: str) -> None:
        """Writes lines, unless there are none."""
        if text:
            # A path in the outcome can contain bytes that are not UTF-8.
            os.write(self._descriptor, (text + "\n").encode(errors="surrogateescape"))


@contextlib.contextmanager
def _stdout_for_outcome_only() -> Iterator[_Stdout]:
    """Sends standard output to standard error. It redirects the file descriptor, so that native code is included."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        yield _Stdout(1)
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield _Stdout(stdout)
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def check_encoding(arguments: Sequence[str], encoding: str) -> None:
    """Raises InputError if an argument has characters that the encoding of the locale does not pass on.

    Files are read and written in UTF-8 whatever the locale is, but names of files come in the encoding of the locale.

    Args:
      arguments: the command line.
      encoding: the encoding of names of files, sys.getfilesystemencoding().
    """
    if encoding.lower().replace("-", "") == "utf8":
        return
    for argument in arguments:
        if not argument.isascii():
            shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            raise InputError(
                f"argument {shown!r} has characters that the locale, whose encoding is {encoding}, does not pass on; "
                "set LC_ALL=C.UTF-8 or PYTHONUTF8=1, and call the same command again"
            )


_SIGNALS = {Interrupted: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
"""The signals by the exceptions that their handlers raise."""


_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
"""The file that frames of an import name."""
_CALLBACKS = os.path.join("asyncio", "events.py")
"""The end of the file of the function _run, in which asyncio calls callbacks."""
_AGAIN_SECONDS = 0.05
"""The time after which a signal is sent again that was lost."""
_TERMINATED = "the program was terminated; nothing half-written is kept; call the same command again"


class _CtrlC(KeyboardInterrupt):
    """Ctrl-C. CPython ends a process by SIGINT after a KeyboardInterrupt, even a caught one, that came through exec."""


def _raising(error: BaseException, received: list[BaseException]) -> Callable[..., None]:
    """Returns a signal handler that adds an exception to `received` and raises it.

    A signal that arrives during an import or in a callback of asyncio is sent again until that has ended. Native
    modules crash when their initialisation meets an exception, Python modules stay half-made, and asyncio drops the
    exceptions of callbacks, in which Orbax restores a checkpoint.
    """
    sender: threading.Thread | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal sender
        if _must_go_on(frame):
            if sender is None or not sender.is_alive():
                sender = _send_again(number, received)
            return
        received.append(error)
        raise error

    return handle


def _must_go_on(frame: FrameType | None) -> bool:
    """Returns whether a frame belongs to an import or to a callback of asyncio."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _IMPORT_SYSTEM or (code.co_name == "_run" and code.co_filename.endswith(_CALLBACKS)):
            return True
        frame = frame.f_back
    return False


def _send_again(number: int, received: list[BaseException]) -> threading.Thread:
    """Sends a signal a moment later, and again and again as long as its handler stays the same and raises nothing.

    Returns the thread that sends it.
    """
    first, seen = signal.getsignal(number), len(received)

    def send() -> None:
        while callable(handler := signal.getsignal(number)) and len(received) == seen:
            os.kill(os.getpid(), number)
            if handler is not first:
                return
            time.sleep(_AGAIN_SECONDS)

    timer = threading.Timer(_AGAIN_SECONDS, send)
    timer.daemon = True
    timer.start()
    return timer


def _raises_again(hook: Callable[[Any], None], received: list[BaseException]) -> Callable[[Any], None]:
    """Returns a hook for exceptions that Python drops. When a signal raised the exception, it sends the signal again.

    A signal can arrive while the garbage collector, a finaliser or a weak reference calls a function. Python drops an
    exception that is raised there. So the signal is sent again a moment later, to the handler that is set by then. If
    that is the same one, the signal is sent until the handler was called: a signal that comes when the main thread is
    about to wait for a lock does not end the wait, and the next one does. Another handler may count signals.
    """

    def send_again_or_pass_on(unraisable: Any) -> None:
        number = next((of for kind, of in _SIGNALS.items() if issubclass(unraisable.exc_type, kind)), None)
        if number is None:
            hook(unraisable)
            return
        _send_again(number, received)

    return send_again_or_pass_on
