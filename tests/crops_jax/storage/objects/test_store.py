import subprocess
import sys

import pytest

from crops_jax.errors import InputError
from crops_jax.storage.objects.store import ObjectStore
from tests.paths import ROOT


def test_objects_are_written_listed_read_and_removed(server, tmp_path):
    store = ObjectStore(f"{server[1]}://bucket/a")
    assert store.listing() == {}
    (tmp_path / "file").write_bytes(b"12345")
    store.upload("deep/in/file", tmp_path / "file")
    store.write("b", b"")
    assert {name: entry.size for name, entry in store.listing().items()} == {"b": 0, "deep/in/file": 5}
    assert store.read("deep/in/file") == b"12345"
    store.download("deep/in/file", tmp_path / "copy", size=5)
    assert (tmp_path / "copy").read_bytes() == b"12345"
    assert sorted(store.names_here()) == ["b", "deep"]
    one = ObjectStore(f"{server[1]}://bucket/a/b").listing()
    assert list(one) == [""]
    before = store.listing()
    store.write("b", b"1")
    assert store.listing()["b"] != before["b"]
    store.remove(["b", "deep/in/file", "never there"])
    assert store.listing() == {}


def test_a_conditional_put_writes_once(s3):
    store = ObjectStore("s3://bucket/a")
    assert store.create("claim", b"one")
    assert not store.create("claim", b"two")
    assert store.create("claim", b"one")  # as when the answer of the first call was lost
    assert store.read("claim") == b"one"


def test_the_conditional_put_of_gcs_asks_for_generation_0(gcs):
    """The emulator writes whatever the generation is, so only the request is looked at."""
    ObjectStore("gs://bucket/a").create("claim", b"one")
    assert any("ifGenerationMatch=0" in path for method, path in gcs.requests if method == "POST")


def test_a_bucket_that_does_not_exist_is_named(s3):
    with pytest.raises(InputError, match="s3://nowhere/a: there is no bucket nowhere; check the name"):
        ObjectStore("s3://nowhere/a").listing()


def test_the_age_of_an_object_needs_no_clock_of_this_machine(s3, gcs):
    """A clock that jumps, or that was never set, must not make the claim of a living writer look abandoned."""
    script = """
import time
right, wrong = time.time, 0.0
time.time = lambda: right() + wrong
from crops_jax.storage.objects.store import ObjectStore
for url in ("s3://bucket/a", "gs://bucket/a"):
    store = ObjectStore(url)
    store.write("claim", b"one")
    for wrong in (-1e6, 1e6):
        assert 0 <= store.age_seconds("claim") < 600, (url, store.age_seconds("claim"))
    wrong = 0.0
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_an_object_that_does_not_exist_has_no_age(server):
    with pytest.raises(FileNotFoundError):
        ObjectStore(f"{server[1]}://bucket/a").age_seconds("never there")
