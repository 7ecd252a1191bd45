"""Packs several short texts into one row of tokens, so that little of a batch is padding.

A text never crosses the end of its row. Each token carries the number of its text within the row (its segment), by
which attention and pooling separate the texts: the vector of a text is the same as when the text is encoded alone.
Krell et al., "Efficient Sequence Packing without Cross-contamination", 2021 (arXiv 2107.02027).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

PADDING_TOKEN = -1
"""The token that fills the rest of a row, whatever padding the tokenizer uses. The segment of padding is -1 too."""

CPU_BATCH_TOKENS = 2048
"""The number of tokens that a CPU encodes at once. Their states fit its caches, and few rows of the last batch are
empty."""

MAX_SHAPES = 4
"""The maximum number of different numbers of rows for which programs are compiled."""

_TOKENS_PER_SEGMENT = 4
_HEADROOM = 1.07
_MIN_SAVING = 0.05
_COMPILATION_STEPS = 50
"""The number of steps that take about as long as the compilation of a step: 10 to 40 on a CPU, more on accelerators."""
# The numbers of rows of a batch that is not full.
_SMALL_BATCHES = (8, 64)


def batch_tokens(platform: str, *, elsewhere: int) -> int:
    """Returns the number of tokens to encode at once on a JAX platform: CPU_BATCH_TOKENS on "cpu", else `elsewhere`."""
    return CPU_BATCH_TOKENS if platform == "cpu" else elsewhere


class PackedTexts(NamedTuple):
    """Texts in rows. The rows form groups of equal size; each device gets whole groups, and no text leaves its group.

    The arrays are NumPy's on the host and JAX's in a compiled step.

    tokens: the token ids, padded with -1.
    segments: for each token the number of its text within the row, from 0; -1 for padding.
    places: the position of each text, row * segments_per_row(row_tokens) + segment; -1 for an empty or missing text.
    """

    tokens: Int32[Any, "groups rows row_tokens"]
    segments: Int32[Any, "groups rows row_tokens"]
    places: Int32[Any, "groups texts"]


class Rows(NamedTuple):
    """The row of each text of a group, and its position in the row.

    row: the number of the row; -1 for a text that is in no row.
    segment: the number of the text within its row, from 0.
    start: the position of the text's first token in the row.
    count: the number of rows used.
    """

    row: Int64[np.ndarray, "texts"]
    segment: Int64[np.ndarray, "texts"]
    start: Int64[np.ndarray, "texts"]
    count: int


def segments_per_row(row_tokens: int) -> int:
    """Returns the maximum number of texts in one row. A compiled program has this many vectors for each row."""
    return max(1, row_tokens // _TOKENS_PER_SEGMENT)


def packed_row_width(*limits: int) -> int:
    """Returns the number of tokens of the shortest row that holds a text of any of the limits: a multiple of 8."""
    return _rounded_up(max(limits), 8)


def assign_rows(
    lengths: Sequence[int] | Int64[np.ndarray, "texts"], *, row_tokens: int, shortest_opening: int = 1
) -> Rows:
    """Assigns texts to rows by best-fit decreasing: longest text first, each into the fullest row that has room for it.

    As long as no row reaches its maximum number of segments, the number of rows is at most 11/9 of the smallest
    possible number, plus one (Johnson 1974). Texts of equal length keep their order, so the result depends only on the
    lengths.

    Args:
      lengths: the number of tokens of each text.
      row_tokens: the number of tokens of a row.
      shortest_opening: a shorter text never opens a row: it goes into the room of an open one, or into none (row -1).

    Raises:
      ValueError: a text is longer than a row.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > row_tokens:
        raise ValueError(f"a text of {lengths.max()} tokens does not fit a row of {row_tokens}")
    row, segment, start = (np.full(len(lengths), -1, np.int64) for _ in range(3))
    max_segments = segments_per_row(row_tokens)
    filled: list[int] = []
    # The open rows by the room that is left in them. Bit r of `rooms` is set if some row has room r, so the smallest
    # room that suffices is the lowest set bit from `length` on.
    by_room: list[list[int]] = [[] for _ in range(row_tokens + 1)]
    rooms = 0
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        if not length:
            break
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        elif length >= shortest_opening:
            room, chosen = row_tokens, len(filled)
            filled.append(0)
        else:
            continue
        row[text], segment[text], start[text] = chosen, filled[chosen], row_tokens - room
        filled[chosen] += 1
        room -= length
        if room and filled[chosen] < max_segments:
            by_room[room].append(chosen)
            rooms |= 1 << room
    return Rows(row, segment, start, len(filled))


def lay_out(
    texts: Sequence[Int32[np.ndarray, "tokens"]], rows: Rows, *, row_tokens: int, num_rows: int
) -> tuple[
    Int32[np.ndarray, "num_rows row_tokens"], Int32[np.ndarray, "num_rows row_tokens"], Int32[np.ndarray, "texts"]
]:
    """Returns one group of PackedTexts: the tokens, segments and places of texts whose rows `assign_rows` chose.

    Raises ValueError when there are more rows than `num_rows`.
    """
    if rows.count > num_rows:
        raise ValueError(f"{rows.count} rows do not fit {num_rows}")
    tokens, segments = (np.full(num_rows * row_tokens, PADDING_TOKEN, np.int32) for _ in range(2))
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(lengths)
    if len(texts) and ends[-1]:
        first = rows.row * row_tokens + rows.start
        position = np.repeat(first - (ends - lengths), lengths) + np.arange(ends[-1])
        tokens[position] = np.concatenate(texts)
        segments[position] = np.repeat(rows.segment, lengths)
    places = np.where(rows.row < 0, -1, rows.row * segments_per_row(row_tokens) + rows.segment).astype(np.int32)
    return tokens.reshape(num_rows, row_tokens), segments.reshape(num_rows, row_tokens), places


def row_counts(measured: Sequence[int], *, texts: int, steps: int, multiple: int = 1) -> tuple[int, ...]:
    """Returns the numbers of rows to compile for, ascending, at most MAX_SHAPES; the last one holds any batch.

    A step is compiled for each number that some batch has. So a further number pays only where the rows that it saves
    over the run, as a number of whole steps, exceed the compilation. The last one is hardly ever needed, since the one
    before it holds some more rows than any measured batch. That one is rounded up to four binary digits, so that a
    run of another seed, whose batches differ a little, mostly finds its program in the compilation cache.

    Args:
      measured: the numbers of rows that some batches of the run needed.
      texts: the number of texts of a group; this many rows always suffice.
      steps: the number of steps of the run.
      multiple: each number of rows is a multiple of this.
    """
    counts = [_rounded_up(texts, multiple)]
    if not len(measured):
        return tuple(counts)
    roomy = int(np.ceil(max(measured) * _HEADROOM))
    unit = 1 << max(roomy.bit_length() - 4, 0)
    for place, rows in enumerate((_rounded_up(roomy, unit), max(measured), int(np.ceil(np.median(measured))))):
        rounded = _rounded_up(rows, multiple)
        saving = 1 - rounded / counts[-1]
        saved_steps = steps * np.mean(np.asarray(measured) <= rounded) * saving
        if rounded > 0 and saving >= _MIN_SAVING and (place == 0 or saved_steps > _COMPILATION_STEPS):
            counts.append(rounded)
    return tuple(sorted(counts))


class RowBatch(NamedTuple):
    """Some rows of packed texts.

    tokens, segments: as in PackedTexts.
    texts: the numbers of the texts in these rows.
    places: the position of each of these texts, as in PackedTexts.
    """

    tokens: Int32[np.ndarray, "rows row_tokens"]
    segments: Int32[np.ndarray, "rows row_tokens"]
    texts: Int64[np.ndarray, "packed"]
    places: Int32[np.ndarray, "packed"]


def row_batches(
    texts: Sequence[Int32[np.ndarray, "tokens"]], *, widths: Sequence[int], batch_tokens: int, multiple: int = 1
) -> Iterator[RowBatch]:
    """Yields all texts that have tokens, in batches of few shapes.

    A text goes into a row of the smallest width that holds it, or into the room that is left in a wider row. A full
    batch has batch_tokens / width rows. The last batch of a width has the smallest number of 8, 64 and a full batch's
    rows that holds the remaining rows.

    Args:
      texts: the token ids of each text.
      widths: the values of row_tokens to choose from, ascending; the last one holds the longest text.
      batch_tokens: the number of tokens of a full batch, padding included. A batch has at least `multiple` rows.
      multiple: the number of rows of a batch is a multiple of this, such as the number of devices.
    """
    remaining = np.arange(len(texts))
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    remaining = remaining[lengths > 0]
    for narrower, width in reversed(list(zip((0, *widths), widths))):
        rows = assign_rows(lengths[remaining], row_tokens=width, shortest_opening=narrower + 1)
        yield from _batches_of_width([texts[i] for i in remaining], remaining, rows, width, batch_tokens, multiple)
        remaining = remaining[rows.row < 0]


def _batches_of_width(
    texts: Sequence[np.ndarray], numbers: np.ndarray, rows: Rows, width: int, batch_tokens: int, multiple: int
) -> Iterator[RowBatch]:
    full = _rounded_up(max(1, batch_tokens // width), multiple)
    by_row = np.argsort(rows.row, kind="stable")
    first = np.searchsorted(rows.row[by_row], np.arange(0, rows.count + full, full))
    for batch, start in enumerate(range(0, rows.count, full)):
        chosen = by_row[first[batch] : first[batch + 1]]
        count = min(full, rows.count - start)
        heights = (_rounded_up(height, multiple) for height in (*_SMALL_BATCHES, full))
        num_rows = next(height for height in heights if count <= min(height, full))
        part = Rows(rows.row[chosen] - start, rows.segment[chosen], rows.start[chosen], count)
        laid_out = lay_out([texts[i] for i in chosen], part, row_tokens=width, num_rows=min(num_rows, full))
        tokens, segments, places = laid_out
        yield RowBatch(tokens, segments, numbers[chosen], places)


def _rounded_up(number: int, unit: int) -> int:
    """Returns the smallest multiple of a unit that is not below a number."""
    return -(-number // unit) * unit
