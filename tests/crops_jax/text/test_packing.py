import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crops_jax.text.packing import (
    MAX_SHAPES,
    PackedTexts,
    assign_rows,
    lay_out,
    packed_row_width,
    row_batches,
    row_counts,
    segments_per_row,
)
from tests.unpacking import unpacked

ROW = 24
lengths_of_texts = st.lists(st.integers(0, ROW), max_size=80)


def texts_of(lengths):
    return [np.arange(100 * number, 100 * number + length, dtype=np.int32) for number, length in enumerate(lengths)]


@given(lengths_of_texts)
def test_every_text_comes_back_whole_and_alone(lengths):
    texts = texts_of(lengths)
    rows = assign_rows(lengths, row_tokens=ROW)
    packed = PackedTexts(*(array[None] for array in lay_out(texts, rows, row_tokens=ROW, num_rows=rows.count + 2)))
    assert unpacked(packed) == [[text.tolist() for text in texts]]
    assert ((packed.tokens < 0) == (packed.segments < 0)).all()
    assert (packed.tokens >= 0).sum() == sum(lengths)
    assert packed.segments.max(initial=-1) < segments_per_row(ROW)
    # Texts stand one after the other from the left edge: padding is at the end of a row only.
    filled = packed.segments[0] >= 0
    assert (np.diff(filled.astype(int), axis=1) <= 0).all()
    assert all((np.diff(row[row >= 0]) >= 0).all() for row in packed.segments[0])


@given(lengths_of_texts)
def test_rows_are_no_more_than_the_bounds(lengths):
    rows = assign_rows(lengths, row_tokens=ROW)
    filled = [length for length in lengths if length]
    fewest = -(-sum(filled) // ROW)
    assert fewest <= rows.count <= len(filled)
    by_segments = -(-len(filled) // segments_per_row(ROW))
    # Best fit leaves no two rows whose texts would fit one, but where rows are full of segments.
    assert rows.count <= max(2 * fewest, fewest + by_segments, 1) or not filled


def test_the_fullest_row_with_room_takes_the_next_text():
    # 20 opens row 0 (room 4), 16 row 1 (room 8), 8 fills row 1, 4 fills row 0, 3 opens row 2.
    rows = assign_rows([3, 4, 8, 16, 20], row_tokens=ROW)
    assert rows.row.tolist() == [2, 0, 1, 1, 0]
    assert rows.start.tolist() == [0, 20, 16, 0, 0]
    assert rows.segment.tolist() == [0, 1, 1, 0, 0]
    assert rows.count == 3


def test_a_row_takes_no_more_texts_than_it_has_places_for_vectors():
    rows = assign_rows([1] * 13, row_tokens=ROW)
    assert np.bincount(rows.row).tolist() == [6, 6, 1]


def test_a_text_that_is_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="a text of 25 tokens does not fit a row of 24"):
        assign_rows([25], row_tokens=ROW)
    with pytest.raises(ValueError, match="2 rows do not fit 1"):
        lay_out(texts_of([24, 24]), assign_rows([24, 24], row_tokens=ROW), row_tokens=ROW, num_rows=1)


def test_real_lengths_leave_little_padding():
    random = np.random.default_rng(0)
    lengths = np.minimum(random.lognormal(2.5, 0.6, 320).astype(int) + 3, 64)
    rows = assign_rows(lengths, row_tokens=64)
    assert lengths.sum() / (rows.count * 64) > 0.97


def test_numbers_of_rows_hold_any_batch_and_are_few():
    long = {"steps": 100_000}
    assert row_counts([100, 120, 110], texts=400, **long) == (110, 120, 144, 400)
    assert row_counts([117, 120, 118], texts=400, **long) == (120, 144, 400)
    assert row_counts([10, 12, 11], texts=40, multiple=4, **long) == (12, 16, 40)
    assert row_counts([3], texts=3, multiple=2, **long) == (4,)
    assert row_counts([], texts=7, **long) == (7,)
    assert row_counts([0], texts=7, **long) == (7,)
    assert row_counts([7, 7], texts=7, **long) == (7,)
    assert len(row_counts(range(1, 90), texts=1000, **long)) <= MAX_SHAPES


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (20, (144, 400)),
        (299, (144, 400)),  # all batches save 1 - 120 / 144: 49.8 steps, less than a compilation
        (301, (120, 144, 400)),  # 50.2 steps
        (899, (120, 144, 400)),  # two of three batches save 1 - 110 / 120: 49.9 steps
        (901, (110, 120, 144, 400)),  # 50.1 steps
    ],
)
def test_a_short_run_compiles_for_few_numbers_of_rows(steps, expected):
    assert row_counts([100, 120, 110], texts=400, steps=steps) == expected


def test_a_short_run_whose_batches_nearly_fill_the_largest_number_compiles_once():
    """The roomy number, 400, saves nothing; 370 rows save 7.5 % of a step, which 667 steps pay for."""
    assert row_counts([370, 350], texts=400, steps=600) == (400,)
    assert row_counts([370, 350], texts=400, steps=700) == (370, 400)


def test_runs_of_other_seeds_share_a_number_of_rows():
    assert {row_counts([needed], texts=400, steps=20) for needed in range(121, 135)} == {(144, 400)}


def test_a_row_holds_the_longest_text():
    assert [packed_row_width(*limits) for limits in ((6, 12), (32, 64), (129,))] == [16, 64, 136]


@pytest.mark.parametrize("multiple", [1, 3])
@pytest.mark.parametrize("batch_tokens", [1, 200, 4000])
def test_batches_of_rows_hold_every_text_once(batch_tokens, multiple):
    random = np.random.default_rng(1)
    lengths = np.minimum(random.lognormal(2, 1.2, 300).astype(int), 96)
    lengths[:5] = 0, 1, 96, 0, 32
    texts = texts_of(lengths)
    seen, shapes = [], set()
    for batch in row_batches(texts, widths=(32, 96), batch_tokens=batch_tokens, multiple=multiple):
        packed = PackedTexts(batch.tokens[None], batch.segments[None], batch.places[None])
        assert unpacked(packed)[0] == [texts[number].tolist() for number in batch.texts]
        seen += batch.texts.tolist()
        shapes.add(batch.tokens.shape)
        assert len(batch.tokens) % multiple == 0
    assert sorted(seen) == [number for number, length in enumerate(lengths) if length]
    assert {width for _, width in shapes} == {32, 96}
    assert len(shapes) <= 6


def test_short_texts_fill_what_long_ones_leave():
    texts = texts_of([90, 6, 30, 30])
    found = list(row_batches(texts, widths=(32, 96), batch_tokens=1000))
    assert [(batch.tokens.shape[1], sorted(batch.texts.tolist())) for batch in found] == [(96, [0, 1]), (32, [2, 3])]


def test_no_texts_give_no_batches():
    assert list(row_batches([], widths=(32,), batch_tokens=64)) == []
    assert list(row_batches(texts_of([0, 0]), widths=(32,), batch_tokens=64)) == []
