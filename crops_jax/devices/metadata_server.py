"""The metadata server of a virtual machine of Google Cloud: what it says about this machine.

GCE_METADATA_IP names another address (HOST or HOST:PORT), as for JAX.
"""

import contextlib
from collections.abc import Mapping

_HOST = "metadata.google.internal"
_FOLDER = "computeMetadata/v1/instance"
_TIMEOUT_SECONDS = 2.0


def read(key: str, environment: Mapping[str, str]) -> str | None:
    """Returns the value of a key below instance/, or None when no server answers or it has no such key.

    Args:
      key: such as attributes/worker-network-endpoints or maintenance-event.
      environment: os.environ.
    """
    import http.client  # here, because few programs ask, and all of them import this module
    import urllib.request

    host = environment.get("GCE_METADATA_IP") or _HOST
    request = urllib.request.Request(f"http://{host}/{_FOLDER}/{key}", headers={"Metadata-Flavor": "Google"})
    # No proxy: the server has an address of the machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, http.client.HTTPException):
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return answer.read().decode(errors="replace").strip()
    return None
