import itertools
import pickle

import pytest

from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage.inputs import copy_shards, local_copy
from crops_jax.storage.objects import clients
from crops_jax.storage.objects.store import ObjectStore
from crops_jax.storage.remote.files import GAP_BYTES, Piece, RemoteFiles, note_path, pieces

SHARD = "crops-train.tfrecord-00000-of-00002"
OTHER = "crops-train.tfrecord-00001-of-00002"
TEXT = bytes(range(256)) * 8


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([("a", 5, 9)], [("a", 5, 9, [0])]),
        # 10 bytes between two ranges are read with them, and 11 are not.
        ([("a", 0, 20), ("a", 30, 40)], [("a", 0, 40, [0, 1])]),
        ([("a", 0, 20), ("a", 31, 40)], [("a", 0, 20, [0]), ("a", 31, 40, [1])]),
        # The order of the ranges does not matter, and that of the pieces is the order of the files.
        (
            [("b", 0, 5), ("a", 30, 40), ("a", 0, 20), ("b", 6, 9)],
            [("a", 0, 40, [2, 1]), ("b", 0, 9, [0, 3])],
        ),
        # A batch can hold a record twice, and a range can lie in another one.
        ([("a", 0, 30), ("a", 5, 9), ("a", 0, 30)], [("a", 0, 30, [0, 2, 1])]),
        # The end of one file is not near the beginning of another one.
        ([("a", 0, 5), ("b", 6, 9)], [("a", 0, 5, [0]), ("b", 6, 9, [1])]),
        # A piece has at most 50 bytes, unless one range is longer.
        ([("a", 0, 30), ("a", 35, 50), ("a", 51, 60)], [("a", 0, 50, [0, 1]), ("a", 51, 60, [2])]),
        ([("a", 0, 70), ("a", 70, 75)], [("a", 0, 70, [0]), ("a", 70, 75, [1])]),
        ([("a", 0, 70), ("a", 60, 65), ("a", 0, 70)], [("a", 0, 70, [0, 2, 1])]),
    ],
)
def test_ranges_that_are_near_one_another_are_read_by_one_request(ranges, expected):
    assert pieces(ranges, gap=10, most=50) == [Piece(*piece) for piece in expected]


@pytest.fixture(params=["s3", "gs"])
def server(request):
    """The proxy before a server of each kind, and a folder with two shards and two other files."""
    proxy = request.getfixturevalue("gcs" if request.param == "gs" else "s3")
    url = f"{request.param}://bucket/records"
    store = ObjectStore(url)
    for name, content in {SHARD: TEXT, OTHER: TEXT[::-1], f"{SHARD}.index": b"12", "tokenizer/a": b"345"}.items():
        store.write(name, content)
    proxy.reset()
    return proxy, url


def opened(url: str) -> RemoteFiles:
    found = RemoteFiles.of(local_copy(url, shards=False))
    assert found is not None
    return found


def test_a_copy_without_shards_reads_them_by_ranges(server):
    proxy, url = server
    copy = local_copy(url, shards=False)
    assert sorted(path.name for path in copy.rglob("*") if path.is_file()) == ["a", f"{SHARD}.index"]
    assert proxy.bytes_read("records/crops") == 2
    remote = RemoteFiles.of(copy)
    assert remote is not None
    assert (remote.url, remote.total_bytes, remote.size_of(copy / OTHER)) == (url, 4096, 2048)
    ranges = [(SHARD, 100, 110), (OTHER, 0, 3), (SHARD, 2040, 2048), (SHARD, 105, 120)]
    expected = [TEXT[100:110], TEXT[::-1][:3], TEXT[2040:], TEXT[105:120]]
    for one in (remote, pickle.loads(pickle.dumps(remote))):
        proxy.reset()
        assert one.read(ranges, threads=4) == expected
        reads = [number for path, number in proxy.reads if "tfrecord-" in path]
        assert sorted(reads) == [3, 2048 - 100]
    assert remote.read([], threads=4) == []


def test_ranges_are_read_at_the_same_time(s3, monkeypatch):
    ObjectStore("s3://bucket/records").write(SHARD, bytes(20 * 70_000))
    remote = opened("s3://bucket/records")
    s3.reset()
    s3.awaited_reads = (12, SHARD)
    ranges = [(SHARD, place * 70_000, place * 70_000 + 10) for place in range(20)]
    assert min(later[1] - one[2] for one, later in itertools.pairwise(ranges)) > GAP_BYTES
    assert remote.read(ranges, threads=12) == [bytes(10)] * 20
    assert len(s3.reads) == 20
    assert s3.most_reads_at_once == 12


def test_a_copy_gets_its_shards_when_they_are_wanted(server):
    proxy, url = server
    copy = local_copy(url, shards=False)
    proxy.reset()
    assert local_copy(url) == copy
    assert (copy / SHARD).read_bytes() == TEXT
    assert RemoteFiles.of(copy) is None
    assert proxy.bytes_read(".index") == 0
    proxy.reset()
    assert local_copy(url, shards=False) == copy
    assert proxy.bytes_read("tfrecord-") == 0
    assert RemoteFiles.of(copy) is None


def test_shards_that_a_killed_process_left_in_part_are_copied_again(s3):
    store = ObjectStore("s3://bucket/records")
    for name, content in {SHARD: TEXT, OTHER: TEXT, f"{SHARD}.index": b"12"}.items():
        store.write(name, content)
    copy = local_copy(store.url, shards=False)
    (copy / SHARD).write_bytes(TEXT[:100])
    (copy / OTHER).write_bytes(TEXT[::-1])
    assert opened(store.url).read([(OTHER, 0, 3)], threads=1) == [TEXT[:3]]
    local_copy(store.url)
    assert (copy / SHARD).read_bytes() == (copy / OTHER).read_bytes() == TEXT
    (copy / SHARD).unlink()
    assert note_path(local_copy(store.url, shards=False)).is_file()  # a copy that lost a file is made anew


@pytest.mark.parametrize(("cache", "most", "copied"), [("auto", 4096, 1), ("auto", 4095, 0), ("off", 9999, 0)])
def test_small_shards_are_copied(s3, monkeypatch, cache, most, copied):
    monkeypatch.setattr("crops_jax.storage.inputs.SMALL_BYTES", most)
    store = ObjectStore("s3://bucket/records")
    store.write(SHARD, TEXT)
    store.write(OTHER, TEXT)
    copy = local_copy(store.url, shards=False)
    remote = copy_shards(copy, cache)
    assert (remote is None) == (copy / SHARD).is_file() == bool(copied)
    assert copy_shards(copy, "shards") is None
    assert (copy / OTHER).read_bytes() == TEXT
    assert copy_shards(copy, "off") is None  # they are there


@pytest.mark.parametrize("kind", ["unavailable", "cut", "dead"])
def test_a_range_is_tried_again(s3, kind):
    ObjectStore("s3://bucket/records").write(SHARD, TEXT)
    remote = opened("s3://bucket/records")
    s3.faults(kind, method="GET", containing=SHARD, times=3)
    assert remote.read([(SHARD, 10, 30)], threads=2) == [TEXT[10:30]]
    s3.faults(kind, method="GET", containing=SHARD, times=10)
    with pytest.raises(NamedFailure, match="s3://bucket/records: 4 attempts failed"):
        remote.read([(SHARD, 10, 30)], threads=2)


def test_one_signature_serves_all_ranges_of_a_shard_of_s3(s3, monkeypatch):
    monkeypatch.setattr(clients, "_SIGNED_SECONDS", 10**9)
    ObjectStore("s3://bucket/a b+é").write(SHARD, bytes(8 * 70_000))
    remote = opened("s3://bucket/a b+é")
    s3.reset()
    remote.read([(SHARD, place * 70_000, place * 70_000 + 10) for place in range(8)], threads=1)
    paths = [path for method, path in s3.requests if method == "GET"]
    assert len(paths) == 8
    assert len({path.partition("X-Amz-Signature=")[2] for path in paths}) == 1
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in paths[0]  # objects under keys of KMS refuse older signatures


def test_a_signed_url_that_is_refused_does_not_end_the_read(s3):
    ObjectStore("s3://bucket/records").write(SHARD, TEXT)
    remote = opened("s3://bucket/records")
    s3.faults("forbidden", method="GET", containing="X-Amz-Signature", times=100)
    assert remote.read([(SHARD, 10, 30)], threads=1) == [TEXT[10:30]]
    s3.faults("forbidden", method="GET", containing=SHARD, times=100)
    with pytest.raises(InputError, match=r"s3://bucket/records: access is refused .*set AWS_PROFILE"):
        remote.read([(SHARD, 10, 30)], threads=1)


def test_a_failure_ends_the_requests_that_wait(s3):
    ObjectStore("s3://bucket/records").write(SHARD, bytes(100 * 70_000))
    remote = opened("s3://bucket/records")
    s3.reset()
    s3.faults("unavailable", method="GET", containing=SHARD, times=10_000)
    with pytest.raises(NamedFailure):
        remote.read([(SHARD, place * 70_000, place * 70_000 + 10) for place in range(100)], threads=1)
    assert len(s3.requests) < 100


@pytest.mark.parametrize("change", ["longer", "shorter", "removed"])
def test_a_shard_that_changes_is_status_4_with_its_name(server, change):
    _, url = server
    remote, store = opened(url), ObjectStore(url)
    assert remote.read([(SHARD, 1000, 1003)], threads=1) == [TEXT[1000:1003]]
    if change == "removed":
        store.remove([SHARD])
    else:
        store.write(SHARD, TEXT + b"1" if change == "longer" else TEXT[:500])
    with pytest.raises(NamedFailure, match=f"{url}/{SHARD} was removed or replaced while it was read"):
        remote.read([(OTHER, 0, 5), (SHARD, 1000, 1003)], threads=2)
    assert remote.read([(OTHER, 0, 1)], threads=1) == [TEXT[-1:]]


def test_a_shard_of_the_same_size_with_other_bytes_is_another_version(s3):
    store = ObjectStore("s3://bucket/records")
    store.write(SHARD, TEXT)
    remote = opened(store.url)
    store.write(SHARD, TEXT[::-1])
    with pytest.raises(NamedFailure, match="removed or replaced"):
        remote.read([(SHARD, 0, 3)], threads=1)


def test_the_range_of_gcs_names_its_generation(gcs):
    """The emulator answers whatever the generation is, so only the request is looked at."""
    ObjectStore("gs://bucket/records").write(SHARD, TEXT)
    remote = opened("gs://bucket/records")
    gcs.reset()
    remote.read([(SHARD, 0, 3)], threads=1)
    [path] = [path for method, path in gcs.requests if method == "GET" and SHARD in path]
    assert f"generation={remote.entries[SHARD].version}" in path


def test_a_published_shard_is_compared_with_the_marker_when_it_is_copied(s3, tmp_path):
    from crops_jax.storage.marker import MARKER, content_of, marker_text

    store = ObjectStore("s3://bucket/records")
    (tmp_path / SHARD).write_bytes(TEXT)
    store.write(SHARD, TEXT[::-1])
    store.write(MARKER, marker_text({SHARD: content_of(tmp_path / SHARD)}))
    remote = opened(store.url)
    with pytest.raises(InputError, match=f"{SHARD} is not the file that was published"):
        local_copy(store.url)
    assert opened(store.url).entries == remote.entries
    store.write(SHARD, TEXT[:50])
    with pytest.raises(InputError, match=f"{SHARD} is not the file that was published"):
        local_copy(store.url, shards=False)
