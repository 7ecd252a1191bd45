import errno
import os
import types

import pytest

from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage.objects import attempts, clients
from crops_jax.storage.objects.store import ObjectStore


@pytest.mark.parametrize(("fixture", "kind"), [("s3", "unavailable"), ("s3", "cut"), ("s3", "dead"), ("gcs", "dead")])
def test_a_read_is_tried_again(fixture, kind, request, tmp_path):
    """gcsfs waits for seconds after other faults before it gives up, so it meets only this one here."""
    proxy, scheme = request.getfixturevalue(fixture), "gs" if fixture == "gcs" else "s3"
    store = ObjectStore(f"{scheme}://bucket/a")
    store.write("file", b"0123456789" * 100)
    proxy.faults(kind, method="GET", containing="a/file", times=2)
    store.download("file", tmp_path / "file", size=1000)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 100


@pytest.mark.parametrize("kind", ["unavailable", "dead"])
def test_a_write_is_tried_again(s3, kind):
    store = ObjectStore("s3://bucket/a")
    s3.faults(kind, method="PUT", containing="a/file", times=2)
    store.write("file", b"1")
    assert store.read("file") == b"1"


def test_a_server_that_stays_down_is_a_named_failure(s3):
    store = ObjectStore("s3://bucket/a")
    s3.faults("unavailable", method="GET", times=100)
    with pytest.raises(NamedFailure, match=r"s3://bucket/a: 4 attempts failed .*call the same command again"):
        store.listing()


def test_missing_credentials_say_what_to_do(s3, new_clients, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(InputError, match=r"s3://bucket/a: access is refused .*set AWS_PROFILE"):
        ObjectStore("s3://bucket/a").listing()


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({}, "s3://a bucket/a"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:1"}, "s3://bucket/a"),
        ({"AWS_DEFAULT_REGION": "us east"}, "s3://bucket/a"),
        ({"AWS_CONFIG_FILE": "FILE"}, "s3://bucket/a"),
        ({"AWS_CA_BUNDLE": "/nowhere", "AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, "s3://bucket/a"),
    ],
)
def test_a_setting_that_the_client_cannot_use_is_an_error_of_the_user_at_once(
    variables, path, s3, new_clients, tmp_path, monkeypatch
):
    (tmp_path / "broken").write_text("a [broken file\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / "broken") if value == "FILE" else value)
    monkeypatch.setattr(attempts.time, "sleep", lambda seconds: pytest.fail("waited for another attempt"))
    with pytest.raises(InputError, match=rf"{path}: this cannot be asked for.*check the path and .*AWS_ENDPOINT_URL"):
        ObjectStore(path).listing()


def test_a_server_without_tls_that_is_asked_by_https_is_an_error_of_the_user_at_once(s3, new_clients, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"].replace("http:", "https:"))
    monkeypatch.setattr(attempts.time, "sleep", lambda seconds: pytest.fail("waited for another attempt"))
    with pytest.raises(InputError, match=r"this cannot be asked for.*check the path and "):
        ObjectStore("s3://bucket/a").listing()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENAMETOOLONG])
def test_an_error_of_the_local_disk_is_not_one_of_the_server(number, server, tmp_path, monkeypatch):
    """A full disk is told as such, and a file that may not be written is no matter of credentials."""
    store = ObjectStore(f"{server[1]}://bucket/a")
    error = OSError(number, os.strerror(number), None if number == errno.ENOSPC else str(tmp_path / "file"))

    def get_file(*_) -> None:
        raise error

    monkeypatch.setattr(store._file_system, "get_file", get_file)
    monkeypatch.setattr(attempts.time, "sleep", lambda seconds: pytest.fail("waited for another attempt"))
    with pytest.raises(OSError) as raised:
        store.download("file", tmp_path / "file", size=1)
    assert raised.value is error


def test_gcs_is_not_asked_again_by_both_the_client_and_its_caller(gcs, new_clients, monkeypatch, capfd):
    """gcsfs makes six attempts with waits of its own, and would log each error with its traceback."""
    monkeypatch.setattr("gcsfs.retry.asyncio", types.SimpleNamespace(sleep=_nothing))
    gcs.faults("unavailable", method="GET", times=1000)
    with pytest.raises(NamedFailure, match=r"gs://bucket/a: 6 attempts failed .*call the same command again"):
        ObjectStore("gs://bucket/a").listing()
    assert len(gcs.requests) == 6
    assert "Traceback" not in "".join(capfd.readouterr())


async def _nothing(seconds: float) -> None:
    """Stands for a wait."""


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_server_that_takes_a_request_and_never_answers_is_given_up(scheme, s3, gcs, new_clients, monkeypatch):
    monkeypatch.setattr("gcsfs.retry.asyncio", types.SimpleNamespace(sleep=_nothing))
    monkeypatch.setattr(clients, "_SILENCE_SECONDS", 0.05)
    for proxy in (s3, gcs):
        proxy.faults("silent", method="GET", times=1000)
    with pytest.raises(NamedFailure, match=rf"{scheme}://bucket/a: [46] attempts failed .*[Tt]imeout"):
        ObjectStore(f"{scheme}://bucket/a").listing()
