"""Notices of a metadata server on the loopback."""

import os
import signal
import threading

import pytest

from crops_jax.devices import notices
from crops_jax.errors import Interrupted
from crops_jax.training.guards import stop_signal
from tests.metadata import MetadataServer

PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def no_notice_yet(monkeypatch):
    monkeypatch.setattr(notices, "_given", threading.Event())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"maintenance-event": "NONE", "preempted": "FALSE"}, None),
        ({"maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE", "preempted": "FALSE"}, None),
        ({"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}, "TERMINATE_ON_HOST_MAINTENANCE"),
        ({"maintenance-event": "NONE", "preempted": "TRUE"}, "preempted"),
    ],
)
def test_what_ends_the_machine_is_announced(values, expected):
    with MetadataServer(values) as server:
        assert notices.announced({"GCE_METADATA_IP": server.address}) == expected


def test_a_notice_is_delivered_once(capfd):
    delivered = threading.Semaphore(0)
    with MetadataServer({"maintenance-event": "NONE", "preempted": "FALSE"}) as server:
        notices.watch({"GCE_METADATA_IP": server.address}, deliver=delivered.release, poll_seconds=0.01)
        assert not notices.given()
        server.values["preempted"] = "TRUE"
        assert delivered.acquire(timeout=PATIENCE_SECONDS)
        assert notices.given()
    assert "Google Cloud takes this machine away (preempted)" in capfd.readouterr().err


def test_elsewhere_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(notices, "_PRODUCT", tmp_path / "absent")
    before = threading.active_count()
    notices.watch({})
    assert threading.active_count() == before


def test_the_signal_after_a_notice_is_no_second_request_to_stop():
    with stop_signal() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.is_set()
        notices._given.set()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="interrupted twice"):
            os.kill(os.getpid(), signal.SIGINT)
