"""Records in a bucket, read by ranges, are those on a disk, in each process and worker, until a shard changes."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from crops_jax import artifacts, program
from crops_jax.config import Config
from crops_jax.errors import InputError, NamedFailure
from crops_jax.input_pipeline import batches
from crops_jax.records import RecordSource, splits, write_records
from crops_jax.records.text_index import text_index_path
from crops_jax.records.tfrecord import index_path
from crops_jax.runs import checkpoints
from crops_jax.runs.checksums import CHECKSUM_MODULUS, SAMPLES_FIELD, batch_checksum
from crops_jax.runs.folder import check_positives
from crops_jax.runs.log import read_metrics
from crops_jax.storage.inputs import local_copy
from crops_jax.storage.objects.store import ObjectStore
from launch.train import train
from tests import clusters
from tests.record_examples import assert_equal, example
from tests.tiny_run import CONFIG as TINY
from tests.tiny_run import tiny_records, use_bag_encoder, without_times

RECORDS = 22
SHARD = "crops-train.tfrecord-00001-of-00003"
CONFIGURATION = """
from tests.tiny_run import CONFIG as TINY

CONFIG = TINY.replace(
    data={"cache": "off"},
    training={"steps": 6, "evaluate_every_steps": 3, "dev_documents": 5, "log_every_steps": 1},
)
"""


def config(**data) -> Config:
    encoder = {"max_query_tokens": 5, "max_document_tokens": 6}
    return Config().replace(encoder=encoder, data={"queries_per_batch": 4, "documents_per_query": 3, **data})


def upload(folder: Path, url: str) -> None:
    store = ObjectStore(url)
    for file in folder.rglob("*"):
        if file.is_file():
            store.upload(file.relative_to(folder).as_posix(), file)


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "local"
    write_records(folder, [example(i, documents=i % 7 + 1) for i in range(RECORDS)], num_shards=3)
    write_records(folder, map(example, range(5)), num_shards=1, split="dev")
    return folder


@pytest.fixture(params=["s3", "gs"])
def url(request, local):
    """The path in a bucket of the records that are on the disk too."""
    proxy = request.getfixturevalue("gcs" if request.param == "gs" else "s3")
    place = f"{request.param}://bucket/records"
    upload(local, place)
    proxy.reset()
    return place


def remote(url: str, **options) -> RecordSource:
    return RecordSource(local_copy(url, shards=False), **options)


def assert_same(found, expected) -> None:
    found, expected = list(found), list(expected)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_records_in_a_bucket_are_those_on_the_disk(url, local):
    for split in ("train", "dev"):
        here, there = RecordSource(local, split=split), remote(url, split=split)
        assert len(here) == len(there)
        for one, other in zip(there, here, strict=True):
            assert_equal(one, other)
        numbers = [3, 0, len(here) - 1, 3]
        for one, number in zip(there.read(numbers, threads=2), numbers, strict=True):
            assert_equal(one, here[number])
        assert_equal(there[2], here[2])
    assert splits(there.path) == splits(local)
    assert not list(there.path.glob("*.tfrecord-?????-of-?????"))


@pytest.mark.parametrize("data", [{}, {"shuffle": False}])
def test_batches_are_those_of_the_records_on_the_disk(url, local, data):
    for groups, threads in ((1, 0), (2, 3)):
        share = {"groups": groups, "own_groups": [groups - 1], "start_step": 1, "num_steps": 8}
        found = batches(remote(url), config(**data, read_threads=threads), **share)
        assert_same(found, batches(RecordSource(local), config(**data), **share))


def test_without_text_indices_the_batches_are_the_same(s3, local):
    for shard in range(3):
        text_index_path(local / f"crops-train.tfrecord-{shard:05}-of-00003").unlink()
    upload(local, "s3://bucket/records")
    share = {"num_steps": 3}
    assert_same(
        batches(remote("s3://bucket/records"), config(), **share), batches(RecordSource(local), config(), **share)
    )


def test_the_bytes_that_a_process_reads_fall_with_their_number(s3, tmp_path):
    """The records are longer than the gaps that are read with them."""
    size = 80_000
    write_records(tmp_path / "local", [example(i, documents=1, tokens=size // 4) for i in range(64)], num_shards=2)
    upload(tmp_path / "local", "s3://bucket/records")
    source, read = remote("s3://bucket/records"), {}
    for groups in (1, 2, 4):
        s3.reset()
        feed = batches(source, config(queries_per_batch=16), num_steps=4, groups=groups, own_groups=[groups - 1])
        assert len(list(feed)) == 4
        read[groups] = s3.bytes_read("tfrecord-")
    assert 64 * size < read[1] < 64 * (size + 500)
    assert read[2] == read[1] // 2
    assert read[4] == read[1] // 4


def test_the_checks_before_the_first_step_read_no_shard_as_a_whole(s3, tmp_path):
    examples = [example(i, documents=1, tokens=2_000) for i in range(600)]
    write_records(tmp_path / "local", examples, num_shards=1)
    upload(tmp_path / "local", "s3://bucket/records")
    s3.reset()
    copy = local_copy("s3://bucket/records", shards=False)
    assert s3.bytes_read("tfrecord-") < 600 * 60  # the indices
    check_positives(copy)
    assert s3.bytes_read("tfrecord-") < 300 * 8_200


def test_a_damaged_record_is_status_2_with_its_name(s3, local):
    file = local / SHARD
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    upload(local, "s3://bucket/records")
    with pytest.raises(InputError, match=r"00001-of-00003: the data of record \d does not match its checksum"):
        list(remote("s3://bucket/records"))


def test_a_length_that_is_damaged_is_status_2_with_its_name(s3, local):
    file = local / SHARD
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    upload(local, "s3://bucket/records")
    with pytest.raises(InputError, match="00001-of-00003: record 0 is damaged"):
        list(remote("s3://bucket/records"))


@pytest.mark.parametrize("damage", ["missing", "cut", "of another shard"])
def test_a_shard_without_its_index_cannot_be_read_by_ranges(s3, local, damage):
    file = index_path(local / SHARD)
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.write_bytes(index_path(local / SHARD.replace("1", "2", 1)).read_bytes())
    upload(local, "s3://bucket/records")
    with pytest.raises(InputError, match=rf"{SHARD}.index is missing or damaged.*--data.cache shards"):
        remote("s3://bucket/records")
    assert len(RecordSource(local_copy("s3://bucket/records"))) == RECORDS


def test_a_shard_that_is_missing_is_status_2_with_its_name(s3, local):
    (local / SHARD).unlink()
    upload(local, "s3://bucket/records")
    with pytest.raises(InputError, match=f"s3://bucket/records/{SHARD}: no such file"):
        remote("s3://bucket/records")


def test_a_shard_that_vanishes_while_batches_are_read_is_status_4_with_its_name(url):
    feed = batches(remote(url), config(), num_steps=50)
    next(feed)
    ObjectStore(url).remove([SHARD])
    with pytest.raises(NamedFailure, match=f"{url}/{SHARD} was removed or replaced"):
        list(feed)


def test_faults_of_the_server_change_nothing(s3, local):
    upload(local, "s3://bucket/records")
    source, expected = remote("s3://bucket/records"), list(batches(RecordSource(local), config(), num_steps=6))
    for kind in ("unavailable", "cut"):
        s3.faults(kind, method="GET", containing="tfrecord-", times=3)
        assert_same(batches(source, config(), num_steps=6), expected)


@pytest.mark.slow
def test_worker_processes_change_nothing_and_name_a_shard_that_vanished(s3, local):
    upload(local, "s3://bucket/records")
    feed = batches(remote("s3://bucket/records"), config(workers=1), num_steps=200)
    assert_same(itertools.islice(feed, 5), batches(RecordSource(local), config(), num_steps=5))
    ObjectStore("s3://bucket/records").remove([SHARD])
    with pytest.raises(NamedFailure, match=f"s3://bucket/records/{SHARD} was removed or replaced"):
        list(feed)


def run(capfd, *arguments: str) -> tuple[int, dict, str]:
    with pytest.raises(SystemExit) as ended:
        program.run(train, example="", arguments=arguments, device=True, uses_devices=True)
    out, err = capfd.readouterr()
    return ended.value.code, json.loads(out) if out else {}, err


def untimed(run: Path) -> list[dict]:
    return [without_times(line) for line in read_metrics(run)]


def parameters(run: Path) -> list[np.ndarray]:
    return jax.tree.leaves(checkpoints.restore_parameters(run, which="last"))


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_launch_train_learns_the_same_from_a_bucket(s3, tmp_path, capfd, monkeypatch):
    use_bag_encoder(monkeypatch)
    local = tiny_records(tmp_path / "records", queries=40)
    upload(local, "s3://bucket/records")
    (tmp_path / "tiny.py").write_text(CONFIGURATION)
    runs = {name: tmp_path / name for name in ("disk", "ranges")}
    call = (str(tmp_path / "tiny.py"), "--records")
    status, _, err = run(capfd, *call, str(local), "--output", str(runs["disk"]))
    assert status == 0, err
    s3.reset()
    status, outcome, err = run(capfd, *call, "s3://bucket/records", "--output", str(runs["ranges"]))
    assert status == 0, err
    assert outcome["run"] == str(runs["ranges"])
    assert "s3://bucket/records: 3 shards of 0.0 GB are read by ranges" in err
    assert untimed(runs["disk"]) == untimed(runs["ranges"])
    manifests = [artifacts.read_manifest(runs[name]) for name in ("disk", "ranges")]
    assert manifests[0]["inputs"] == manifests[1]["inputs"]
    for one, other in zip(parameters(runs["disk"]), parameters(runs["ranges"]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_two_processes_train_on_the_samples_of_the_disk(s3, tmp_path):
    local = tiny_records(tmp_path / "records", queries=40)
    upload(local, "s3://bucket/records")
    (tmp_path / "tiny.py").write_text(CONFIGURATION)
    command = ["launch.train", str(tmp_path / "tiny.py"), "--records", "s3://bucket/records", "--mesh.data", "-1"]
    command += ["--output", str(tmp_path / "run"), "--training.evaluate-every-steps", "0"]
    s3.reset()
    ended = clusters.run(command, processes=2, devices=1)
    assert [one.status for one in ended] == [0, 0], ended
    assert s3.bytes_read("tfrecord-00000-of-00002") > 0
    assert not list((tmp_path / "cache").rglob("*.tfrecord-?????-of-?????"))
    expected = batches(RecordSource(local), TINY, num_steps=6)
    sums = [int(batch_checksum(batch, np.int32(step))) % CHECKSUM_MODULUS for step, batch in enumerate(expected)]
    assert [line[SAMPLES_FIELD] for line in read_metrics(tmp_path / "run")] == sums
