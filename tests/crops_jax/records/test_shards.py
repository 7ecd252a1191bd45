import json
import pickle

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crops_jax.errors import InputError
from crops_jax.records import (
    QueryRecord,
    RecordSource,
    add_split,
    decode_record,
    encode_record,
    encode_records,
    shard_bounds,
    splits,
    tfrecord,
    write_records,
    write_shard,
)
from crops_jax.records.dataset_info import DATASET_INFO, FEATURES, features_json, shard_names
from crops_jax.records.query_record import Example
from tests.record_examples import SEP, assert_equal, example

INT32 = st.integers(-(2**31), 2**31 - 1)


def int32_arrays(shape, elements):
    return hnp.arrays(np.int32, shape, elements=elements)


SCORES = st.floats(0, 1, width=32) | st.just(np.nan)


@st.composite
def query_records(draw, scored=False):
    documents, labelled = draw(st.integers(0, 5)), draw(st.integers(0, 20))
    token_lists = int32_arrays(st.integers(0, 6), st.integers(0, 2**31 - 1))
    levels = st.integers(0, 5)
    return QueryRecord(
        query_tokens=draw(token_lists),
        document_ids=draw(int32_arrays((documents, 2), INT32)),
        document_levels=draw(int32_arrays(documents, levels)),
        document_tokens=tuple(draw(token_lists) for _ in range(documents)),
        labelled_ids=draw(int32_arrays((labelled, 2), INT32)),
        labelled_levels=draw(int32_arrays(labelled, levels)),
        labelled_scores=draw(hnp.arrays(np.float32, labelled, elements=SCORES)) if scored else None,
    )


def files_of(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@given(query_records() | query_records(scored=True))
def test_a_record_survives_its_encoding(record):
    data = encode_record(record)
    assert_equal(decode_record(data), record)
    assert encode_record(decode_record(data)) == data


@given(st.binary(max_size=200))
def test_random_bytes_are_no_record(data):
    with pytest.raises(InputError):
        decode_record(data)


@given(st.data())
def test_damaged_examples_are_refused_or_read_as_a_record(data):
    encoded = bytearray(encode_record(example(1)))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_record(bytes(encoded))
    except InputError:
        return
    assert len(found.document_ids) == len(found.document_levels) == len(found.document_tokens)
    assert len(found.labelled_ids) == len(found.labelled_levels)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"document_levels": [1]}, "3 document_ids, 1 document_levels and 3 lists"),
        ({"labelled_levels": [1]}, "4 labelled_ids and 1 labelled_levels"),
        ({"document_levels": [1, 2, 6]}, r"document_levels must lie in \[0, 5\], found 1 to 6"),
        ({"labelled_levels": [1, 2, -1, 0]}, r"labelled_levels must lie in \[0, 5\]"),
        ({"query_tokens": [4, -1]}, "query_tokens must lie in"),
        ({"query_tokens": [2**31]}, "query_tokens must fit 32 bits"),
        ({"query_tokens": [1.5]}, "query_tokens must be integers"),
        ({"document_ids": [[1, 2, 3]] * 3}, "document_ids must be integers"),
        ({"labelled_scores": [0.5]}, r"labelled_scores must have one number for each of 4 labelled_ids, found \(1,\)"),
        (
            {"labelled_scores": [0.5, np.nan, 1.5, 0]},
            r"labelled_scores must lie in \[0, 1\] or be NaN, found 0.0 to 1.5",
        ),
    ],
)
def test_a_wrong_field_is_named(changed, message):
    with pytest.raises(InputError, match=message):
        encode_record(example(1)._replace(**changed))


def test_examples_are_numbered_in_errors_and_nothing_is_left(tmp_path):
    wrong = example(1)._replace(query_tokens=[-5])
    with pytest.raises(InputError, match="example 2: query_tokens"):
        write_records(tmp_path / "r", [example(0), example(1), wrong], num_shards=1)
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize("num_shards", [1, 3, 4, 50])
def test_examples_are_read_back_in_order_from_any_number_of_shards(tmp_path, num_shards):
    examples = [example(i, documents=i % 4, labelled=i) for i in range(10)]
    written = write_records(tmp_path, iter(examples), num_shards=num_shards)
    source = RecordSource(tmp_path)
    assert written["records"] == len(source) == 10
    assert written["shards"] == min(num_shards, 10)
    for found, expected in zip(source, examples, strict=True):
        assert_equal(found, expected)
    assert source.labelled_per_query == 9
    assert (tmp_path / f"crops-train.tfrecord-00000-of-{min(num_shards, 10):05d}").exists()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=st.lists(query_records(), min_size=1, max_size=6), num_shards=st.integers(1, 4))
def test_any_records_survive_their_files(tmp_path_factory, examples, num_shards):
    path = tmp_path_factory.mktemp("records")
    write_records(path, examples, num_shards=num_shards)
    for found, expected in zip(RecordSource(path), examples, strict=True):
        assert_equal(found, expected)


def scored_example(number: int) -> QueryRecord:
    return example(number)._replace(labelled_scores=np.array([1, 0.25, np.nan, number / 100], np.float32))


def test_scores_lie_beside_the_levels_and_records_without_them_are_as_before(tmp_path):
    write_records(tmp_path / "scored", map(scored_example, range(5)), num_shards=2)
    write_records(tmp_path / "scored", [scored_example(9)], num_shards=1, split="dev")
    source = RecordSource(tmp_path / "scored")
    assert source.scored
    for number, found in enumerate(source):
        assert_equal(found, scored_example(number))
    declared = json.loads((tmp_path / "scored" / FEATURES).read_text())["featuresDict"]["features"]
    assert declared["labelled_scores"]["tensor"]["dtype"] == "float32"
    write_records(tmp_path / "plain", map(example, range(5)), num_shards=2)
    assert not RecordSource(tmp_path / "plain").scored
    assert all(record.labelled_scores is None for record in RecordSource(tmp_path / "plain"))
    assert "labelled_scores" not in (tmp_path / "plain" / FEATURES).read_text()
    assert "labelled_scores" not in (tmp_path / "plain" / DATASET_INFO).read_text()


def test_a_folder_does_not_mix_records_with_and_without_scores(tmp_path):
    with pytest.raises(InputError, match="example 1: either all records of a folder have labelled_scores, or none"):
        write_records(tmp_path / "one_split", [example(0), scored_example(1)], num_shards=1)
    write_records(tmp_path, [scored_example(0)], num_shards=1)
    with pytest.raises(InputError, match="either all records of a folder have labelled_scores, or none"):
        write_records(tmp_path, [example(1)], num_shards=1, split="dev")


def test_the_same_examples_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_records(tmp_path / name, map(example, range(9)), num_shards=2)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize("num_shards", [1, 4, 20])
def test_shards_that_are_written_apart_are_those_that_are_written_together(tmp_path, num_shards):
    examples = [*map(example, range(9)), example(9, documents=1, labelled=30)]
    write_records(tmp_path / "together", examples, num_shards=num_shards)
    (tmp_path / "apart").mkdir()
    bounds = shard_bounds(10, num_shards)
    infos = []
    for name, first, last in zip(shard_names("train", len(bounds) - 1), bounds, bounds[1:]):
        parts = (encode_records(examples[at : min(at + 2, last)], first=at) for at in range(first, last, 2))
        infos.append(write_shard(tmp_path / "apart" / name, parts))
    add_split(tmp_path / "apart", infos, split="train")
    assert files_of(tmp_path / "apart") == files_of(tmp_path / "together")
    with pytest.raises(InputError, match="split train exists already"):
        add_split(tmp_path / "apart", infos, split="train")
    with pytest.raises(InputError, match=r"example 7: .*document_levels"):
        encode_records([example(0), example(1)._replace(document_levels=np.array([9]))], first=6)


def test_ids_are_never_capped(tmp_path):
    write_records(tmp_path, [example(0, documents=1, labelled=20_000)], num_shards=1)
    source = RecordSource(tmp_path)
    assert source.labelled_per_query == len(source[0].labelled_levels) == 20_000


def test_splits_are_added_one_by_one_and_share_a_width_of_labels(tmp_path):
    write_records(tmp_path, [example(i) for i in range(5)], num_shards=2)
    write_records(tmp_path, [example(9, labelled=12)], num_shards=1, split="dev")
    assert splits(tmp_path) == {"train": 5, "dev": 1}
    assert RecordSource(tmp_path).labelled_per_query == RecordSource(tmp_path, split="dev").labelled_per_query == 12
    with pytest.raises(InputError, match="split dev exists already"):
        write_records(tmp_path, [example(0)], num_shards=1, split="dev")
    with pytest.raises(InputError, match="there is no split test, only dev, train"):
        RecordSource(tmp_path, split="test")


def test_the_token_that_closes_every_text_is_told(tmp_path):
    write_records(tmp_path / "closed", [example(0), example(1)], num_shards=1)
    assert RecordSource(tmp_path / "closed").closing_token == SEP
    open_ended = example(1)._replace(query_tokens=np.array([7, 8], np.int32))
    write_records(tmp_path / "open", [example(0), open_ended], num_shards=1)
    assert RecordSource(tmp_path / "open").closing_token is None


def test_no_examples_and_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(InputError, match="no examples"):
        write_records(tmp_path, [], num_shards=1)
    with pytest.raises(InputError, match="num_shards"):
        write_records(tmp_path, [example(0)], num_shards=0)
    with pytest.raises(InputError, match="a split is named"):
        write_records(tmp_path, [example(0)], num_shards=1, split="../x")


def test_a_source_can_be_pickled(tmp_path):
    write_records(tmp_path, map(example, range(4)), num_shards=2)
    source = RecordSource(tmp_path)
    source[0]
    assert_equal(pickle.loads(pickle.dumps(source))[3], example(3))


def test_valid_checksums_around_something_else_name_file_and_record(tmp_path):
    write_records(tmp_path, map(example, range(3)), num_shards=1)
    file = tmp_path / "crops-train.tfrecord-00000-of-00001"
    # As long as the record in whose place it stands: the sum of all is looked at when the records are opened.
    foreign = Example.FromString(encode_record(example(1)))
    kept = foreign.features.feature["query_tokens"]
    foreign.features.feature["query_tokenz"].CopyFrom(kept)
    del foreign.features.feature["query_tokens"]
    records = [encode_record(example(0)), foreign.SerializeToString(), encode_record(example(2))]
    file.write_bytes(b"".join(map(tfrecord.frame, records)))
    with pytest.raises(InputError, match="00000-of-00001: record 1: feature query_tokens is not one value"):
        list(RecordSource(tmp_path))


def test_missing_shards_and_damaged_descriptions_are_errors(tmp_path):
    write_records(tmp_path, map(example, range(6)), num_shards=3)
    (tmp_path / "crops-train.tfrecord-00001-of-00003").rename(tmp_path / "away")
    with pytest.raises(InputError, match="00001-of-00003: no such file, it should hold records 2 to 3"):
        RecordSource(tmp_path)
    (tmp_path / "away").rename(tmp_path / "crops-train.tfrecord-00001-of-00003")
    info = json.loads((tmp_path / DATASET_INFO).read_text())
    info["splits"][0]["shardLengths"] = ["2", "3", "1"]
    (tmp_path / DATASET_INFO).write_text(json.dumps(info))
    with pytest.raises(InputError, match="00001-of-00003: 2 records found, 3 expected"):
        RecordSource(tmp_path)
    for damaged in ("", "[]", "{}", '{"name": "crops", "fileFormat": "tfrecord", "splits": [{"name": "train"}]}'):
        (tmp_path / DATASET_INFO).write_text(damaged)
        with pytest.raises(InputError, match=r"dataset_info\.json"):
            RecordSource(tmp_path)
    with pytest.raises(InputError, match="holds no training records"):
        RecordSource(tmp_path / "nowhere")


@pytest.mark.parametrize("scored", [False, True])
def test_features_json_is_what_tfds_writes(tmp_path, scored):
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow_datasets is optional")
    features = tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=shape, dtype=np.int32, encoding="bytes")
            for name, shape in {
                "query_tokens": (None,),
                "documents": (None, 4),
                "document_tokens": (None,),
                "labelled": (None, 3),
            }.items()
        }
        | (
            {"labelled_scores": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes")}
            if scored
            else {}
        )
    )
    (tmp_path / "tfds").mkdir()
    features.save_config(tmp_path / "tfds")
    write_records(tmp_path / "ours", [scored_example(0) if scored else example(0)], num_shards=1)
    assert (tmp_path / "ours" / FEATURES).read_bytes() == (tmp_path / "tfds" / FEATURES).read_bytes()
    assert json.loads((tmp_path / "tfds" / FEATURES).read_text()) == features_json(scored=scored)


def test_dataset_info_is_read_and_written_back_by_tfds_byte_by_byte(tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="tensorflow_datasets is optional")
    from tensorflow_datasets.core import dataset_info

    write_records(tmp_path, [example(0), example(1)], num_shards=2)
    write_records(tmp_path, [example(2)], num_shards=1, split="dev")
    proto = dataset_info.read_proto_from_builder_dir(tmp_path)
    assert json_format.MessageToJson(proto, sort_keys=True) == (tmp_path / DATASET_INFO).read_text()


def test_a_shard_in_the_place_of_another_of_as_many_records_is_refused(tmp_path):
    write_records(tmp_path, [example(i, documents=1 + i // 2) for i in range(4)], num_shards=2)
    first, second = sorted(tmp_path.glob("crops-train.tfrecord-0000?-of-00002"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match="one of them belongs to other records"):
        RecordSource(tmp_path)
