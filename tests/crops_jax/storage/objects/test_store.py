import pytest

from crops_jax.errors import InputError
from crops_jax.storage.objects.store import ObjectStore


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
    assert 0 <= store.age_seconds("claim") < 60


def test_the_conditional_put_of_gcs_asks_for_generation_0(gcs):
    """The emulator writes whatever the generation is, so only the request is looked at."""
    ObjectStore("gs://bucket/a").create("claim", b"one")
    assert any("ifGenerationMatch=0" in path for method, path in gcs.requests if method == "POST")


def test_a_bucket_that_does_not_exist_is_named(s3):
    with pytest.raises(InputError, match="s3://nowhere/a: there is no bucket nowhere; check the name"):
        ObjectStore("s3://nowhere/a").listing()
