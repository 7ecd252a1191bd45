"""The notice with which Google Cloud announces that it will take a machine away: of maintenance, or of a preemption.

A TPU machine gets 60 s and more of notice before a maintenance, and a spot machine 30 s. A program treats the notice as
SIGTERM.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from crops_jax.devices import metadata_server

_POLL_SECONDS = 5.0
_PRODUCT = Path("/sys/class/dmi/id/product_name")
_given = threading.Event()


def watch(
    environment: Mapping[str, str],
    *,
    deliver: Callable[[], object] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    poll_seconds: float = _POLL_SECONDS,
) -> threading.Event:
    """Starts a thread that calls `deliver` once when a notice comes; on other machines it starts none.

    Args:
      environment: os.environ. GCE_METADATA_IP names the metadata server, also on a machine outside Google Cloud.
      deliver: by default it sends SIGTERM to this process.
      poll_seconds: the interval in seconds at which the metadata server is asked.

    Returns an event that ends the thread when it is set.
    """
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(poll_seconds):
            if notice := announced(environment):
                print(f"Google Cloud takes this machine away ({notice}): stopping", file=sys.stderr, flush=True)
                _given.set()
                deliver()
                return

    if environment.get("GCE_METADATA_IP") or _is_google_machine():
        threading.Thread(target=follow, name="maintenance notices", daemon=True).start()
    return ended


def announced(environment: Mapping[str, str]) -> str | None:
    """Returns what is announced, such as "preempted", or None. A live migration (MIGRATE_...) needs no stop."""
    event = metadata_server.read("maintenance-event", environment) or ""
    if event.startswith("TERMINATE"):
        return event
    return "preempted" if metadata_server.read("preempted", environment) == "TRUE" else None


def given() -> bool:
    """Returns whether a notice has come, so that the SIGTERM that follows it is no second request to stop."""
    return _given.is_set()


def _is_google_machine() -> bool:
    return _PRODUCT.is_file() and _PRODUCT.read_text(errors="replace").strip() == "Google Compute Engine"
