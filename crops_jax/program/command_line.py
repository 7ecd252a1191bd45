"""How every program of this project behaves: arguments, outcome line, exit status.

A program is a frozen dataclass of arguments and a function from it to its outcome, a dictionary:

    if __name__ == "__main__":
        program.run(mine, example="python -m data.mine --logs logs --output labels")

The outcome is printed as one line of JSON, the last on standard output; everything else goes to standard error.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from crops_jax.devices import cluster_environment, processes
from crops_jax.errors import AnotherProcessFailed, Interrupted, NamedFailure, explained
from crops_jax.program.arguments import parse


def run(function: Callable[[Any], dict[str, Any]], *, example: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `function` on arguments parsed from the command line and exits with the status of product.md.

    Args:
      function: takes one parameter annotated with a dataclass of arguments; its docstring is the help text. When
        that dataclass has a field `config: ConfigArgument`, the first positional argument names a configuration (see
        `load_config`) and every field of it can be overridden: `--optimizer.learning-rate 1e-5`.
      example: one line for --help.
      arguments: the command line, by default sys.argv[1:].
    """
    cluster_environment.skip_absent_tpu(os.environ)
    with _stdout_for_outcome_only() as print_outcome:
        sys.exit(_status(function, example, list(sys.argv[1:] if arguments is None else arguments), print_outcome))


def _status(function: Callable, example: str, arguments: list[str], print_outcome: Callable[[str], None]) -> int:
    previous = signal.signal(signal.SIGTERM, _raise_interrupted)
    previous_hook, sys.unraisablehook = sys.unraisablehook, _terminates_again(sys.unraisablehook)
    try:
        outcome = function(parse(function, arguments, example=example))
        # Of several processes the first speaks for all.
        if processes.current().is_first:
            print_outcome(json.dumps(outcome, ensure_ascii=False, default=str))
        return 0
    except AnotherProcessFailed as error:
        return error.status
    except BrokenPipeError:
        return NamedFailure.status
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        found = explained(error)
        if found is None:
            raise
        status, message = found
        _complain(message)
        return status
    finally:
        sys.unraisablehook = previous_hook
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _stdout_for_outcome_only() -> Iterator[Callable[[str], None]]:
    """Sends standard output to standard error, at the level of file descriptors so that native code is caught too."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        yield print
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def print_outcome(line: str) -> None:
        # A path in the outcome may hold bytes that are not UTF-8.
        os.write(kept, (line + "\n").encode(errors="surrogateescape"))

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield print_outcome
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _raise_interrupted(*_: Any) -> None:
    raise Interrupted("terminated; nothing half-written is kept; call the same command again")


def _terminates_again(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """A hook for exceptions that Python drops, which does not let the answer to SIGTERM be one of them.

    A signal may come while the collector, a finaliser or a weak reference calls back; what is raised there goes no
    further. The signal is then sent again, a moment later, to whichever handler is in place by then.
    """

    def send() -> None:
        if callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)

    def answer(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, Interrupted):
            timer = threading.Timer(0.05, send)
            timer.daemon = True
            timer.start()
        else:
            hook(unraisable)

    return answer


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
