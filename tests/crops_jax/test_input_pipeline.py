import collections

import numpy as np
import pytest

from crops_jax.config import Config
from crops_jax.errors import InputError
from crops_jax.input_pipeline import (
    PADDING_TOKEN,
    Batch,
    batches,
    choose_documents,
)
from crops_jax.records import QueryRecord, RecordSource, write_records
from tests.record_examples import CLS, SEP, example

RECORDS = 22


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    write_records(path, [example(i, documents=i % 7 + 1) for i in range(RECORDS)], num_shards=3)
    return RecordSource(path)


def config(**data) -> Config:
    encoder = {"max_query_tokens": 5, "max_document_tokens": 6}
    return Config().replace(encoder=encoder, data={"queries_per_batch": 4, "documents_per_query": 3, **data})


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
            assert getattr(one, name).dtype == np.int32


def numbers(found: list[Batch]) -> list[int]:
    """The records of batches, by the number in their query."""
    return [int(row[1]) - 10 for batch in found for row in batch.query_tokens if row[0] != PADDING_TOKEN]


def test_a_batch_holds_queries_documents_and_all_labels(source):
    batch = next(batches(source, config(), num_steps=1))
    assert [array.shape for array in batch] == [(4, 5), (12, 6), (12, 2), (4, 8, 2), (4, 8)]
    for row, number in enumerate(numbers([batch])):
        record = source[number]
        np.testing.assert_array_equal(batch.query_tokens[row], [CLS, 10 + number, SEP, -1, -1])
        labelled = len(record.labelled_ids)
        np.testing.assert_array_equal(batch.labelled_ids[row, :labelled], record.labelled_ids)
        np.testing.assert_array_equal(batch.labelled_levels[row, :labelled], record.labelled_levels)
        assert not batch.labelled_ids[row, labelled:].any()
        for column in range(3 * row, 3 * row + 3):
            if column - 3 * row >= len(record.document_ids):
                assert not batch.document_ids[column].any()
                assert (batch.document_tokens[column] == PADDING_TOKEN).all()
                continue
            place = int(batch.document_ids[column, 1]) - 1
            np.testing.assert_array_equal(batch.document_ids[column], record.document_ids[place])
            np.testing.assert_array_equal(batch.document_tokens[column], [*record.document_tokens[place], -1, -1])


def test_every_record_comes_exactly_once_an_epoch_in_another_order_each_time(source):
    found = numbers(list(batches(source, config(), num_steps=11)))
    epochs = [found[:RECORDS], found[RECORDS:]]
    assert all(sorted(epoch) == list(range(RECORDS)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_order_follows_from_the_seed(source):
    def order(seed):
        seeded = config().replace(training={"seed": seed})
        return numbers(list(batches(source, seeded, num_steps=11)))

    assert order(1) == order(1)
    first_epochs = [order(seed)[:RECORDS] for seed in range(4)]
    assert len({tuple(epoch) for epoch in first_epochs}) == 4
    # grain shuffles epoch e with seed + e; a run must not repeat its neighbour's epochs one later.
    assert order(0)[RECORDS:] != order(1)[:RECORDS]


def test_without_shuffling_records_come_in_order(source):
    found = numbers(list(batches(source, config(shuffle=False), num_steps=7)))
    assert found == [i % RECORDS for i in range(28)]


@pytest.mark.parametrize("start", [0, 1, 5, 6, 12, 13])
def test_starting_later_is_skipping(source, start):
    whole = list(batches(source, config(), num_steps=13))
    assert_same(list(batches(source, config(), start_step=start, num_steps=13)), whole[start:])


def test_a_step_late_in_a_long_run_is_found_at_once(source):
    step = 10**9
    assert len(list(batches(source, config(), start_step=step, num_steps=step + 2))) == 2


@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_several_processes_make_up_the_global_batch(source, processes):
    whole = list(batches(source, config(), start_step=2, num_steps=9))
    parts = [
        list(batches(source, config(), start_step=2, num_steps=9, process_index=p, process_count=processes))
        for p in range(processes)
    ]
    joined = [Batch(*map(np.concatenate, zip(*step))) for step in zip(*parts, strict=True)]
    assert_same(joined, whole)


def test_fewer_records_than_a_batch_are_repeated(tmp_path):
    write_records(tmp_path, [example(i) for i in range(3)], num_shards=1)
    small = RecordSource(tmp_path)
    found = numbers(list(batches(small, config(queries_per_batch=8), num_steps=3)))
    assert collections.Counter(found) == {0: 8, 1: 8, 2: 8}


def test_documents_vary_by_epoch_and_one_of_the_highest_level_is_always_there(source):
    many = [i for i in range(RECORDS) if i % 7 + 1 > 3]
    seen = collections.defaultdict(collections.Counter)
    for batch in batches(source, config(), num_steps=11 * 20):
        for row, number in enumerate(numbers([batch])):
            ids = batch.document_ids[3 * row : 3 * row + 3]
            places = [int(word) - 1 for high, word in ids if high]
            assert len(set(places)) == len(places) == min(3, number % 7 + 1)
            levels = source[number].document_levels
            assert levels[places].max() == levels.max()
            seen[number].update(places)
    for number in many:
        # 40 epochs: every document of at most 7 had its turn, for every record.
        assert set(seen[number]) == set(range(number % 7 + 1))


def test_the_choice_of_documents_is_even():
    levels = [np.array([4, 4, 1, 1, 1, 1], np.int32)] * 6000
    chosen = choose_documents(levels, positions=np.arange(6000), seed=3, columns=3)
    counts = collections.Counter(place for row in chosen for place in row)
    # One positive of two, then two of the five others: 1/2 + 1/2 * 2/5, and 2/5.
    for place in range(6):
        assert counts[place] / 6000 == pytest.approx(0.7 if place < 2 else 0.4, abs=0.03)
    assert chosen[0] != chosen[1] or chosen[1] != chosen[2]
    assert chosen == choose_documents(levels, positions=np.arange(6000), seed=3, columns=3)
    assert chosen != choose_documents(levels, positions=np.arange(6000), seed=4, columns=3)


def test_the_choice_of_one_query_does_not_depend_on_its_neighbours():
    levels = [np.array([4, 1, 1, 1], np.int32), np.array([1] * 9, np.int32), np.zeros(0, np.int32)]
    together = choose_documents(levels, positions=np.array([7, 8, 9]), seed=0, columns=2)
    alone = [
        choose_documents([one], positions=np.array([p]), seed=0, columns=2)[0] for p, one in zip((7, 8, 9), levels)
    ]
    assert together == alone
    assert together[2] == []


def test_long_texts_are_cut_as_the_tokenizer_cuts_them(tmp_path):
    record = example(0, documents=1, tokens=9)
    write_records(tmp_path / "closed", [record], num_shards=1)
    batch = next(batches(RecordSource(tmp_path / "closed"), config(queries_per_batch=1), num_steps=1))
    np.testing.assert_array_equal(batch.document_tokens[0], [CLS, 100, 100, 100, 100, SEP])
    open_ended = record._replace(query_tokens=np.arange(7, 14, dtype=np.int32))
    write_records(tmp_path / "open", [open_ended], num_shards=1)
    batch = next(batches(RecordSource(tmp_path / "open"), config(queries_per_batch=1), num_steps=1))
    np.testing.assert_array_equal(batch.query_tokens[0], [7, 8, 9, 10, 11])


def test_a_query_without_documents_is_a_row_of_empty_columns(tmp_path):
    lonely = QueryRecord(*example(0, documents=0, labelled=2))
    write_records(tmp_path, [lonely, example(1)], num_shards=1)
    batch = next(batches(RecordSource(tmp_path), config(queries_per_batch=2, shuffle=False), num_steps=1))
    assert not batch.document_ids[:3].any()
    assert batch.document_ids[3:].all()


def test_wrong_arguments_are_refused(source):
    with pytest.raises(ValueError, match="must be a multiple of the processes"):
        next(batches(source, config(), num_steps=1, process_count=3))
    with pytest.raises(ValueError, match="start_step must lie in"):
        next(batches(source, config(), start_step=3, num_steps=2))
    assert list(batches(source, config(), start_step=2, num_steps=2)) == []


def test_a_damaged_record_is_named_when_its_batch_comes(tmp_path):
    write_records(tmp_path, map(example, range(8)), num_shards=2)
    file = tmp_path / "crops-train.tfrecord-00001-of-00002"
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    feed = batches(RecordSource(tmp_path), config(shuffle=False), num_steps=2)
    next(feed)
    with pytest.raises(InputError, match=r"00001-of-00002: the data of record 3 does not match"):
        next(feed)


@pytest.mark.slow
def test_worker_processes_change_nothing(source):
    expected = list(batches(source, config(), start_step=1, num_steps=9))
    for workers in (1, 2):
        assert_same(list(batches(source, config(workers=workers), start_step=1, num_steps=9)), expected)


@pytest.mark.slow
def test_a_damaged_record_is_named_by_worker_processes_too(tmp_path):
    write_records(tmp_path, map(example, range(8)), num_shards=2)
    file = tmp_path / "crops-train.tfrecord-00001-of-00002"
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(InputError, match=r"00001-of-00002: the data of record 3 does not match"):
        list(batches(RecordSource(tmp_path), config(shuffle=False, workers=1), num_steps=2))
