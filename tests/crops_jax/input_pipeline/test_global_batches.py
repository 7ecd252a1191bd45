import collections
import shutil

import jax
import numpy as np
import pytest

from crops_jax.config import Config
from crops_jax.errors import InputError
from crops_jax.input_pipeline import Batch, batches, describe_batch, records_of_step
from crops_jax.input_pipeline.batch_reader import cut
from crops_jax.records import QueryRecord, RecordSource, write_records
from crops_jax.records.query_record import feature_values
from crops_jax.records.text_index import RecordTexts, write_text_index
from crops_jax.records.tfrecord import read_index
from crops_jax.text.packing import MAX_SHAPES, PADDING_TOKEN
from tests.record_examples import CLS, SEP, example
from tests.unpacking import unpacked

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
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for (path, array), expected_array in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other)):
            np.testing.assert_array_equal(array, expected_array, err_msg=jax.tree_util.keystr(path))
            assert array.dtype == (np.float32 if "scores" in jax.tree_util.keystr(path) else np.int32)


def numbers(found: list[Batch]) -> list[int]:
    """The records of batches, by the number in their query."""
    return [int(row[1]) - 10 for batch in found for row in batch.query_tokens if row[0] != PADDING_TOKEN]


def test_a_batch_holds_queries_documents_and_all_labels(source):
    batch = next(batches(source, config(), num_steps=1))
    assert [array.shape for array in batch[1:5]] == [(4, 5), (12, 2), (4, 8, 2), (4, 8)]
    [texts] = unpacked(batch.texts[0])
    assert len(batch.texts) == 1
    assert len(texts) == 16
    for row, number in enumerate(numbers([batch])):
        record = source[number]
        np.testing.assert_array_equal(batch.query_tokens[row], [CLS, 10 + number, SEP, -1, -1])
        assert texts[row] == [CLS, 10 + number, SEP]
        labelled = len(record.labelled_ids)
        np.testing.assert_array_equal(batch.labelled_ids[row, :labelled], record.labelled_ids)
        np.testing.assert_array_equal(batch.labelled_levels[row, :labelled], record.labelled_levels)
        assert not batch.labelled_ids[row, labelled:].any()
        for column in range(3 * row, 3 * row + 3):
            if column - 3 * row >= len(record.document_ids):
                assert not batch.document_ids[column].any()
                assert texts[4 + column] == []
                continue
            place = int(batch.document_ids[column, 1]) - 1
            np.testing.assert_array_equal(batch.document_ids[column], record.document_ids[place])
            assert texts[4 + column] == record.document_tokens[place].tolist()


def test_a_batch_of_a_run_that_distils_has_the_scores_of_all_labels(source, tmp_path):
    assert next(batches(source, config(), num_steps=1)).labelled_scores is None
    distils = config().replace(loss={"distillation": "kl"})
    with pytest.raises(ValueError, match="the records have no scores that kl could distil"):
        next(batches(source, distils, num_steps=1))

    def scored(record):
        scores = np.where(record.labelled_levels > 2, record.labelled_levels / 5, np.nan).astype(np.float32)
        return record._replace(labelled_scores=scores)

    write_records(tmp_path, map(scored, source), num_shards=1)
    found, expected = (next(batches(RecordSource(tmp_path), each, num_steps=1)) for each in (distils, config()))
    assert expected.labelled_scores is None
    assert_same([found._replace(labelled_scores=None)], [expected])
    wanted = np.where(found.labelled_levels > 2, found.labelled_levels / 5, np.nan).astype(np.float32)
    np.testing.assert_array_equal(found.labelled_scores, wanted)


def test_groups_hold_successive_queries_with_their_documents(source):
    whole, parts = (next(batches(source, config(), num_steps=1, groups=groups)) for groups in (1, 2))
    assert_same([whole._replace(texts=())], [parts._replace(texts=())])
    [texts] = unpacked(whole.texts[0])
    first, second = unpacked(parts.texts[0])
    assert first == texts[:2] + texts[4:10]
    assert second == texts[2:4] + texts[10:]


def test_two_towers_have_rows_of_their_own(source):
    [shared] = unpacked(next(batches(source, config(), num_steps=1)).texts[0])
    apart = config().replace(encoder={"shared_towers": False})
    queries, documents = next(batches(source, apart, num_steps=1)).texts
    assert unpacked(queries) == [shared[:4]]
    assert unpacked(documents) == [shared[4:]]


def test_a_second_copy_of_a_document_in_a_group_has_no_tokens(tmp_path):
    write_records(tmp_path, [example(0)] * 2, num_shards=1)
    batch = next(batches(RecordSource(tmp_path), config(queries_per_batch=2, shuffle=False), num_steps=1))
    [texts] = unpacked(batch.texts[0])
    assert [len(text) for text in texts] == [3, 3, 4, 4, 4, 0, 0, 0]
    np.testing.assert_array_equal(batch.document_ids[:3], batch.document_ids[3:])


def test_few_shapes_come_and_the_numbers_of_rows_are_multiples(source):
    for micro_batches in (1, 3):
        shapes = {
            batch.texts[0].tokens.shape
            for batch in batches(
                source, config().replace(training={"micro_batches": micro_batches}), num_steps=100, groups=2
            )
        }
        assert 1 <= len(shapes) <= MAX_SHAPES
        assert all(rows % micro_batches == 0 for _, rows, _ in shapes)


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


def test_the_records_of_a_step_are_those_of_its_batch(source):
    found = list(batches(source, config(), num_steps=9))
    for step in (0, 5, 8):
        assert records_of_step(source, config(), step).tolist() == numbers(found[step : step + 1])
    first = records_of_step(source, config(), 8)[0]
    file, record = source.locate(first)
    text = describe_batch(source, config(queries_per_batch=8), 4)
    assert text.startswith(f"its batch holds 8 records of {source.path}: {file.name} record {record}, ")
    assert text.endswith(" and 3 more")


def test_a_step_late_in_a_long_run_is_found_at_once(source):
    step = 10**9
    assert len(list(batches(source, config(), start_step=step, num_steps=step + 2))) == 2


def in_turn(*parts):
    """Arrays whose groups processes hold in turn: 0, 1, 0, 1."""
    groups = [np.split(part, 4 // len(parts)) for part in parts]
    return np.concatenate([group for turn in zip(*groups) for group in turn])


@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_several_processes_make_up_the_global_batch(source, processes):
    whole = list(batches(source, config(), start_step=2, num_steps=9, groups=4))
    parts = [
        list(batches(source, config(), start_step=2, num_steps=9, groups=4, own_groups=range(4)[p::processes]))
        for p in range(processes)
    ]
    assert_same([jax.tree.map(in_turn, *step) for step in zip(*parts, strict=True)], whole)


def damage_all_but(source: RecordSource, kept: list[int]) -> None:
    """Changes a byte of every other record; a process that reads such a record ends with an error."""
    for number in set(range(len(source))) - set(kept):
        file, record = source.locate(number)
        content = bytearray(file.read_bytes())
        content[read_index(file)[record + 1] - 5] ^= 1
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("processes", "data"),
    [(1, {}), (2, {}), (4, {"read_threads": 3}), (8, {}), pytest.param(4, {"workers": 1}, marks=pytest.mark.slow)],
)
def test_each_of_several_processes_reads_the_records_of_its_own_groups_alone(source, tmp_path, processes, data):
    settings = config(queries_per_batch=8, shuffle=False, **data)
    [whole] = batches(source, settings, num_steps=1, groups=8)
    parts = []
    for own in np.arange(8).reshape(processes, -1).tolist():
        damaged = RecordSource(shutil.copytree(source.path, tmp_path / f"of {own}"))
        damage_all_but(damaged, own)
        parts += batches(damaged, settings, num_steps=1, groups=8, own_groups=own)
    assert_same([jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)], [whole])


def test_the_text_index_of_other_records_is_named(tmp_path):
    write_records(tmp_path, map(example, range(4)), num_shards=1)
    [file] = [RecordSource(tmp_path).locate(0)[0]]
    for wrong in (
        example(1, tokens=5),
        example(1)._replace(query_tokens=np.arange(9, dtype=np.int32)),
        example(1, documents=2),
    ):
        texts = [feature_values(record) for record in (example(0), wrong, example(2), example(3))]
        write_text_index(file, RecordTexts.of(texts))
        with pytest.raises(
            InputError, match=r"record 1 has other texts than crops-train.*texts says; remove that file"
        ):
            list(batches(RecordSource(tmp_path), config(shuffle=False), num_steps=1))


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


def test_long_texts_are_cut_as_the_tokenizer_cuts_them(tmp_path):
    record = example(0, documents=1, tokens=9)
    write_records(tmp_path / "closed", [record], num_shards=1)
    batch = next(batches(RecordSource(tmp_path / "closed"), config(queries_per_batch=1), num_steps=1))
    assert unpacked(batch.texts[0])[0][1] == [CLS, 100, 100, 100, 100, SEP]
    open_ended = record._replace(query_tokens=np.arange(7, 14, dtype=np.int32))
    write_records(tmp_path / "open", [open_ended], num_shards=1)
    batch = next(batches(RecordSource(tmp_path / "open"), config(queries_per_batch=1), num_steps=1))
    np.testing.assert_array_equal(batch.query_tokens[0], [7, 8, 9, 10, 11])
    assert unpacked(batch.texts[0])[0][0] == [7, 8, 9, 10, 11]


def test_a_cut_leaves_short_texts_and_the_original_alone():
    text = np.array([5, 6, 7, 8, 2], np.int32)
    assert cut(text, 5, closing_token=2) is text
    assert cut(text, 4, closing_token=2).tolist() == [5, 6, 7, 2]
    assert cut(text, 4, closing_token=None).tolist() == [5, 6, 7, 8]
    assert text.tolist() == [5, 6, 7, 8, 2]


def test_a_query_without_documents_is_a_row_of_empty_columns(tmp_path):
    lonely = QueryRecord(*example(0, documents=0, labelled=2))
    write_records(tmp_path, [lonely, example(1)], num_shards=1)
    batch = next(batches(RecordSource(tmp_path), config(queries_per_batch=2, shuffle=False), num_steps=1))
    assert not batch.document_ids[:3].any()
    assert batch.document_ids[3:].all()


def test_wrong_arguments_are_refused(source):
    for wrong in ({"groups": 3}, {"groups": 2, "own_groups": (2,)}):
        with pytest.raises(ValueError, match="must be a multiple of the groups"):
            batches(source, config(), num_steps=1, **wrong)
    with pytest.raises(ValueError, match="start_step must lie in"):
        next(batches(source, config(), start_step=3, num_steps=2))
    assert list(batches(source, config(), start_step=2, num_steps=2)) == []


def test_a_damaged_record_is_named(tmp_path):
    write_records(tmp_path, map(example, range(8)), num_shards=2)
    file = tmp_path / "crops-train.tfrecord-00001-of-00002"
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(InputError, match=r"00001-of-00002: the data of record 3 does not match"):
        list(batches(RecordSource(tmp_path), config(shuffle=False), num_steps=2))


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
