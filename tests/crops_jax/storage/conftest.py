import json
import socket
import urllib.request

import pytest
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from crops_jax.storage.objects import attempts
from tests.crops_jax.storage.servers import proxy_before


@pytest.fixture(scope="session")
def moto_port():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="session")
def gcs_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield port
    server.stop()


@pytest.fixture(scope="session")
def s3_proxy(moto_port):
    with proxy_before(moto_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def gcs_proxy(gcs_port):
    with proxy_before(gcs_port) as proxy:
        yield proxy


@pytest.fixture
def s3(moto_port, s3_proxy, tmp_path, monkeypatch):
    """A proxy before an empty server of S3 that has the bucket "bucket". Nothing waits between attempts."""
    proxy = s3_proxy
    proxy.reset()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("CROPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(attempts, "WAITS", [0.0] * 3)
    _ask(moto_port, "POST", "/moto-api/reset")
    _ask(moto_port, "PUT", "/bucket")
    return proxy


@pytest.fixture
def gcs(gcs_port, gcs_proxy, tmp_path, monkeypatch):
    """A proxy before an emulator of GCS that has an empty bucket "bucket"."""
    proxy = gcs_proxy
    proxy.reset()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("CROPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(attempts, "WAITS", [0.0] * 3)
    _ask(gcs_port, "GET", "/wipe")
    _ask(gcs_port, "POST", "/storage/v1/b", json.dumps({"name": "bucket"}).encode())
    return proxy


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> None:
    headers = {"Content-Type": "application/json"} if body else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method=method, headers=headers)
    with urllib.request.urlopen(request) as answer:
        answer.read()
