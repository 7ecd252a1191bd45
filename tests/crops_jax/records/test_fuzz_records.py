"""Damaged shards, indices, records and descriptions of training records: refused, or every record is the right one."""

import functools
import json
import tempfile
from pathlib import Path
from random import Random

import numpy as np

from crops_jax import records
from crops_jax.errors import InputError
from crops_jax.records import decode_record, encode_record, tfrecord
from crops_jax.records.dataset_info import DATASET_INFO
from crops_jax.records.query_record import FEATURE_COLUMNS, Example
from tests import fuzzing
from tests.fuzzing import ACCEPTED, REFUSED
from tests.record_examples import assert_equal, example

_RECORDS = 7


@functools.cache
def _files() -> dict[str, bytes]:
    """A folder of two splits, by name."""
    with tempfile.TemporaryDirectory() as folder:
        records.write_records(folder, [example(i, documents=i % 4) for i in range(_RECORDS)], num_shards=3)
        records.write_records(folder, [example(i) for i in range(2)], num_shards=1, split="dev")
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def _write(folder: Path) -> None:
    for name, content in _files().items():
        (folder / name).write_bytes(content)


def _assert_all_are_right(folder: Path) -> str:
    source = records.RecordSource(folder)
    assert len(source) == _RECORDS
    for number in range(_RECORDS):
        assert_equal(source[number], example(number, documents=number % 4))
    return ACCEPTED


def shards_case(generator: Random, folder: Path) -> str:
    """Bytes of shards and their indices changed, files missing or exchanged."""
    _write(folder)
    names = sorted(name for name in _files() if name.startswith("crops-train"))
    for name in generator.sample(names, generator.choice([1, 1, 2])):
        match generator.randrange(8):
            case 0:
                (folder / name).unlink()
            case 1:
                (folder / name).write_bytes(_files()[generator.choice(names)])
            case _:
                (folder / name).write_bytes(fuzzing.mutated_bytes(generator, _files()[name]))
    return _assert_all_are_right(folder)


def frames_case(generator: Random, folder: Path) -> str:
    """Changed records in frames whose checksums are right again: another record of the schema, or refused."""
    file = folder / "crops-train.tfrecord-00000-of-00001"
    records.write_records(folder, [example(0)], num_shards=1)
    data = encode_record(example(generator.randrange(9), documents=generator.randrange(4)))
    changed = _reassembled(generator, data) if generator.random() < 0.5 else fuzzing.mutated_bytes(generator, data)
    tfrecord.index_path(file).unlink()
    file.write_bytes(tfrecord.frame(changed))
    described = json.loads((folder / DATASET_INFO).read_text())
    described["splits"][0]["numBytes"] = str(len(changed))
    (folder / DATASET_INFO).write_text(json.dumps(described))
    found = records.RecordSource(folder)[0]
    assert_equal(decode_record(encode_record(found)), found)
    assert all(0 <= level <= 5 for level in (*found.document_levels, *found.labelled_levels))
    assert len(found.document_tokens) == len(found.document_ids) == len(found.document_levels)
    assert all(tokens.min(initial=0) >= 0 for tokens in (found.query_tokens, *found.document_tokens))
    parsed = Example.FromString(changed).features.feature
    assert sum(map(len, found.document_tokens)) == len(parsed["document_tokens"].bytes_list.value[0]) // 4
    assert len(found.labelled_ids) == len(parsed["labelled"].bytes_list.value[0]) // 12
    return ACCEPTED


def _reassembled(generator: Random, data: bytes) -> bytes:
    """The message with a feature of another content, type or number of values."""
    message = Example.FromString(data)
    name = generator.choice(sorted(FEATURE_COLUMNS))
    feature = message.features.feature[name]
    values = np.frombuffer(feature.bytes_list.value[0], "<i4").copy()
    match generator.randrange(6):
        case 0:
            del message.features.feature[name]
        case 1:
            feature.int64_list.value.extend([1, 2, 3])
        case 2:
            feature.bytes_list.value.append(b"")
        case 3:
            feature.bytes_list.value[0] = fuzzing.mutated_bytes(generator, feature.bytes_list.value[0])
        case _ if len(values):
            values[generator.randrange(len(values))] = generator.choice([-1, 0, 5, 6, 2**31 - 1, -(2**31), 10**6])
            feature.bytes_list.value[0] = values.tobytes()
    return message.SerializeToString()


def description_case(generator: Random, folder: Path) -> str:
    """dataset_info.json with other fields, or that is no JSON: refused, or the records are those it was written for."""
    _write(folder)
    described = json.loads(_files()[DATASET_INFO])
    (folder / DATASET_INFO).write_bytes(fuzzing.mutated_json_text(generator, described))
    counts = records.splits(folder)
    if "train" not in counts:
        assert isinstance(_opened(folder), InputError)
        return REFUSED
    source = records.RecordSource(folder)
    assert 0 <= source.labelled_per_query < 2**31
    assert source.closing_token is None or 0 <= source.closing_token < 2**31
    assert counts["train"] == _RECORDS
    return _assert_all_are_right(folder)


def _opened(folder: Path) -> records.RecordSource | InputError:
    try:
        return records.RecordSource(folder)
    except InputError as error:
        return error


@fuzzing.sizes(shards_case)
def test_damaged_shards(number, tmp_path):
    fuzzing.run(shards_case, number, tmp_path, accepted=1 / 5, refused=1 / 5)


@fuzzing.sizes(frames_case)
def test_records_that_are_not_of_the_schema(number, tmp_path):
    fuzzing.run(frames_case, number, tmp_path, accepted=1 / 10, refused=1 / 10)


@fuzzing.sizes(description_case)
def test_changed_descriptions(number, tmp_path):
    fuzzing.run(description_case, number, tmp_path, accepted=1 / 10, refused=1 / 10)
