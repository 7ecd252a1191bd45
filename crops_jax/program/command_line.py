"""Runs a program of this project: its arguments, its outcome line and its exit status.

A program is a frozen dataclass of arguments and a function from it to its outcome, a dictionary:

    if __name__ == "__main__":
        program.run(mine, example="python -m data.mine --logs logs --output labels")

The outcome is printed as one line of JSON, the last line on standard output. All other output goes to standard error.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from crops_jax.devices import cluster_environment, notices, processes
from crops_jax.errors import AnotherProcessFailed, InputError, Interrupted, NamedFailure, explained
from crops_jax.program.arguments import parse


def run(
    function: Callable[[Any], dict[str, Any]],
    *,
    example: str,
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
      arguments: the command line, by default sys.argv[1:].
      uses_devices: whether the program computes on accelerators. If not, it stays on the CPU of a machine whose TPU
        chips belong to a slice of several machines.
    """
    cluster_environment.skip_absent_tpu(os.environ)
    if not uses_devices:
        cluster_environment.leave_shared_tpu(os.environ)
    with _stdout_for_outcome_only() as print_outcome:
        sys.exit(_status(function, example, list(sys.argv[1:] if arguments is None else arguments), print_outcome))


def _status(function: Callable, example: str, arguments: list[str], print_outcome: Callable[[str], None]) -> int:
    previous = signal.signal(signal.SIGTERM, _raise_interrupted)
    previous_hook, sys.unraisablehook = sys.unraisablehook, _terminates_again(sys.unraisablehook)
    noticing = notices.watch(os.environ)
    try:
        check_encoding(arguments, sys.getfilesystemencoding())
        outcome = function(parse(function, arguments, example=example))
        # Among several processes, process 0 prints the outcome for all.
        if processes.current().is_first:
            print_outcome(json.dumps(outcome, ensure_ascii=False, default=str))
        return 0
    except AnotherProcessFailed as error:
        return error.status
    except BrokenPipeError:
        return NamedFailure.status
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        explanation = explained(error)
        if explanation is None:
            raise
        status, message = explanation
        _print_error(message)
        return status
    finally:
        noticing.set()
        sys.unraisablehook = previous_hook
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _stdout_for_outcome_only() -> Iterator[Callable[[str], None]]:
    """Sends standard output to standard error. It redirects the file descriptor, so that native code is included."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        yield print
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)

    def print_outcome(line: str) -> None:
        # A path in the outcome can contain bytes that are not UTF-8.
        os.write(stdout, (line + "\n").encode(errors="surrogateescape"))

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield print_outcome
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


def _raise_interrupted(*_: Any) -> None:
    raise Interrupted("the program was terminated; nothing half-written is kept; call the same command again")


def _terminates_again(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Returns a hook for exceptions that Python drops. When SIGTERM raised the exception, it sends SIGTERM again.

    A signal can arrive while the garbage collector, a finaliser or a weak reference calls a function. Python drops an
    exception that is raised there. So the signal is sent again a moment later, to the handler that is set by then.
    """

    def send() -> None:
        if callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)

    def send_again_or_pass_on(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, Interrupted):
            timer = threading.Timer(0.05, send)
            timer.daemon = True
            timer.start()
        else:
            hook(unraisable)

    return send_again_or_pass_on


def _print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
