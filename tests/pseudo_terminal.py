"""A pseudo terminal of a given width, on which a test runs a program as a person would."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.paths import ROOT

_PATIENCE_SECONDS = 120
CTRL_C = b"\x03"


class Session(NamedTuple):
    """What a program did on a terminal: its exit status, and all that it wrote there."""

    status: int
    written: str

    @property
    def states(self) -> list[str]:
        """All states of all lines: those that were drawn over each other too."""
        return [state for line in self.written.split("\n") for state in line.split("\r") if state.strip()]

    @property
    def lines(self) -> list[str]:
        """The lines as they stay on the terminal."""
        lines = []
        for line in self.written.replace("\r\n", "\n").split("\n"):
            shown = ""
            for state in line.split("\r"):
                shown = state + shown[len(state) :]
            lines.append(shown.rstrip())
        return lines


def on_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    answers: Mapping[str, bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    stderr: int | None = None,
) -> Session:
    """Runs a command on a new terminal, in a session of its own.

    Args:
      command: the program and its arguments.
      columns: the width of the terminal.
      answers: keys that are typed once each, when the text before them has been written.
      environment: variables beside those of this process.
      folder: the directory that the command runs in.
      stderr: the file descriptor of standard error; None: the terminal.
    """
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def take_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job inherits that it is ignored
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal if stderr is None else stderr,
        preexec_fn=take_terminal,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    )
    os.close(terminal)
    written, waiting = b"", dict(answers or {})
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        while True:
            assert time.monotonic() < deadline, f"the program does not end: {written.decode(errors='replace')}"
            if not select.select([master], [], [], 1)[0]:
                continue
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # all that had the terminal open have ended
                break
            if not part:
                break
            written += part
            for text in [text for text in waiting if text.encode() in written]:
                os.write(master, waiting.pop(text))
        status = process.wait(timeout=_PATIENCE_SECONDS)
    finally:
        process.kill()
        os.close(master)
    assert not waiting, f"never written: {list(waiting)}"
    return Session(status, written.decode(errors="replace"))
