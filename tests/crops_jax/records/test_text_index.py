"""The text indices of shards: what they hold, and what is read where they are missing or do not fit."""

import os
import pickle

import numpy as np
import pytest

from crops_jax.records import RecordSource, write_records
from crops_jax.records.text_index import RecordTexts, text_index_path, write_text_index
from tests.record_examples import example

RECORDS = 7


@pytest.fixture
def folder(tmp_path):
    write_records(tmp_path, [example(i, documents=i % 4) for i in range(RECORDS)], num_shards=3)
    return tmp_path


def assert_fits(source, numbers):
    found, records = source.text_index.texts(np.array(numbers, np.int64)), [source[number] for number in numbers]
    assert found.query_tokens.tolist() == [len(record.query_tokens) for record in records]
    assert np.diff(found.starts).tolist() == [len(record.document_ids) for record in records]
    expected = [
        [*words, level, len(tokens)]
        for record in records
        for words, level, tokens in zip(
            record.document_ids.tolist(), record.document_levels.tolist(), record.document_tokens, strict=True
        )
    ]
    assert found.documents.tolist() == expected


def never(number):
    raise AssertionError(f"record {number} was read")


@pytest.mark.parametrize("numbers", [[0], [6, 0, 3, 3], list(range(RECORDS)), [4]])
def test_it_has_the_texts_of_any_records_in_any_order(folder, numbers):
    source = RecordSource(folder)
    source.text_index._read = never
    assert_fits(source, numbers)
    copy = pickle.loads(pickle.dumps(source.text_index))
    for one, other in zip(
        copy.texts(np.array(numbers, np.int64)), source.text_index.texts(np.array(numbers)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_records_without_documents_and_no_records_at_all(tmp_path):
    write_records(tmp_path, [example(i, documents=0) for i in range(3)], num_shards=1)
    source = RecordSource(tmp_path)
    assert_fits(source, [2, 1])
    assert_fits(source, [])
    assert [len(array) for array in RecordTexts.joined([])] == [0, 1, 0]


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "of an older shard", "of fewer records", "empty"])
def test_where_it_is_missing_or_wrong_the_records_are_read(folder, damage):
    source = RecordSource(folder)
    (shard, record), file = source.locate(3), text_index_path(source.locate(3)[0])
    assert record > 0
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "of an older shard":
        texts = source.text_index.texts(np.array([2, 3]))
        os.truncate(shard, os.path.getsize(shard) - 1)
        write_text_index(shard, texts)
        write_records(folder / "again", [example(i, documents=i % 4) for i in range(RECORDS)], num_shards=3)
        os.replace(folder / "again" / shard.name, shard)
    elif damage == "of fewer records":
        write_text_index(shard, source.text_index.texts(np.array([2])))
    else:
        content[-20] ^= damage == "flipped"
        file.write_bytes(content[: {"cut": -5, "flipped": None, "empty": 0}[damage]])
    assert_fits(RecordSource(folder), list(range(RECORDS)))
