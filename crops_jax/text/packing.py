"""Several short texts in one row of tokens, so that little of a batch is padding.

A text never goes over the end of its row. Each token carries the number of its text within the row (its segment), by
which attention and pooling keep texts apart: what comes out for a text is what comes out when it stands alone.
Krell et al., "Efficient Sequence Packing without Cross-contamination", 2021 (arXiv 2107.02027).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

PADDING_TOKEN = -1
"""Fills the rest of a row of tokens, whatever padding the tokenizer has. The segment of padding is -1 too."""

CPU_BATCH_TOKENS = 2048
"""Tokens that a CPU encodes at once: their states stay in its caches, and few rows of the last batch are empty."""

MOST_SHAPES = 4
"""Numbers of rows for which programs are compiled, at most."""

_TOKENS_PER_SEGMENT = 4
_HEADROOM = 1.1
_LEAST_SAVING = 0.05
# Rows of a batch that is not full.
_SMALL_BATCHES = (8, 64)


def batch_tokens(platform: str, *, elsewhere: int) -> int:
    """Tokens to encode at once on a platform of JAX: CPU_BATCH_TOKENS on "cpu", or `elsewhere`."""
    return CPU_BATCH_TOKENS if platform == "cpu" else elsewhere


class PackedTexts(NamedTuple):
    """Texts in rows, in groups of equally many rows; each device gets whole groups, and no text leaves its group.

    Arrays of NumPy on the host, of JAX in a compiled step.

    tokens: padded with -1.
    segments: the number of the text a token belongs to within its row, from 0; -1 for padding.
    places: where a text is: row * segments_per_row(row_tokens) + segment; -1 for an empty or missing one.
    """

    tokens: Int32[Any, "groups rows row_tokens"]
    segments: Int32[Any, "groups rows row_tokens"]
    places: Int32[Any, "groups texts"]


class Rows(NamedTuple):
    """Which row each text of a group goes to, and where in it; row -1 for a text that is in none.

    count: rows used.
    """

    row: Int64[np.ndarray, "texts"]
    segment: Int64[np.ndarray, "texts"]
    start: Int64[np.ndarray, "texts"]
    count: int


def segments_per_row(row_tokens: int) -> int:
    """The most texts that one row takes: a program has so many places for the vectors of a row."""
    return max(1, row_tokens // _TOKENS_PER_SEGMENT)


def row_width(*limits: int) -> int:
    """The shortest row that holds a text of any of the token limits, in full vectors of 8."""
    return -(-max(limits) // 8) * 8


def assign_rows(
    lengths: Sequence[int] | Int64[np.ndarray, "texts"], *, row_tokens: int, shortest_opening: int = 1
) -> Rows:
    """Best-fit decreasing: the longest text first, each into the fullest row that still has room for it.

    Never needs more than 11/9 of the fewest possible rows and one more (Johnson 1974) while rows are not full of
    segments. Equal lengths keep their order, so the result is a function of the lengths.

    Args:
      shortest_opening: a text that is shorter fills room that is left, and gets no row where there is none.

    Raises ValueError for a text that is longer than a row.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > row_tokens:
        raise ValueError(f"a text of {lengths.max()} tokens does not fit a row of {row_tokens}")
    row, segment, start = (np.full(len(lengths), -1, np.int64) for _ in range(3))
    most = segments_per_row(row_tokens)
    filled: list[int] = []
    # Rows by the room they have left, and as bits which rooms there are: the least that suffices is the lowest bit.
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
        if room and filled[chosen] < most:
            by_room[room].append(chosen)
            rooms |= 1 << room
    return Rows(row, segment, start, len(filled))


def lay_out(
    texts: Sequence[Int32[np.ndarray, "tokens"]], rows: Rows, *, row_tokens: int, num_rows: int
) -> tuple[
    Int32[np.ndarray, "num_rows row_tokens"], Int32[np.ndarray, "num_rows row_tokens"], Int32[np.ndarray, "texts"]
]:
    """One group of PackedTexts: tokens, segments and places of texts that `assign_rows` gave their rows."""
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


def row_counts(seen: Sequence[int], *, texts: int, multiple: int = 1) -> tuple[int, ...]:
    """The numbers of rows to compile for, ascending, at most MOST_SHAPES; the last one holds any batch.

    Args:
      seen: rows that some batches of the run needed.
      texts: of a group; so many rows always suffice.
      multiple: each number is one of its multiples.
    """
    wanted = [texts, max(seen) * _HEADROOM, max(seen), np.median(seen)] if len(seen) else [texts]
    greatest = -(-texts // multiple) * multiple
    counts = [greatest]
    for rows in wanted[1:]:
        rounded = -(-int(np.ceil(rows)) // multiple) * multiple
        # A program costs its compilation: one that would hardly be smaller than the next is left out.
        if 0 < rounded <= counts[-1] * (1 - _LEAST_SAVING):
            counts.append(rounded)
    return tuple(sorted(counts))


class RowBatch(NamedTuple):
    """Some rows of packed texts. texts: the numbers of those in it; places: as in PackedTexts."""

    tokens: Int32[np.ndarray, "rows row_tokens"]
    segments: Int32[np.ndarray, "rows row_tokens"]
    texts: Int64[np.ndarray, "packed"]
    places: Int32[np.ndarray, "packed"]


def row_batches(
    texts: Sequence[Int32[np.ndarray, "tokens"]], *, widths: Sequence[int], batch_tokens: int, multiple: int = 1
) -> Iterator[RowBatch]:
    """All texts that have tokens, in batches of few shapes.

    A text goes into a row of the least width that holds it, or fills what is left in a wider one. A batch is full,
    batch_tokens / width rows, or, at the end of a width, the least of 8, 64 and a full one that holds the rest.

    Args:
      widths: row_tokens to choose from, ascending; the last one holds the longest text.
      batch_tokens: of a full batch, padding included; at least `multiple` rows go into it.
      multiple: rows of a batch are a multiple of it, such as the number of devices.
    """
    waiting = np.arange(len(texts))
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    waiting = waiting[lengths > 0]
    for narrower, width in reversed(list(zip((0, *widths), widths))):
        rows = assign_rows(lengths[waiting], row_tokens=width, shortest_opening=narrower + 1)
        yield from _batches_of_width([texts[i] for i in waiting], waiting, rows, width, batch_tokens, multiple)
        waiting = waiting[rows.row < 0]


def _batches_of_width(
    texts: Sequence[np.ndarray], numbers: np.ndarray, rows: Rows, width: int, batch_tokens: int, multiple: int
) -> Iterator[RowBatch]:
    def rounded(count: int) -> int:
        return -(-count // multiple) * multiple

    full = rounded(max(1, batch_tokens // width))
    by_row = np.argsort(rows.row, kind="stable")
    first = np.searchsorted(rows.row[by_row], np.arange(0, rows.count + full, full))
    for batch, start in enumerate(range(0, rows.count, full)):
        chosen = by_row[first[batch] : first[batch + 1]]
        count = min(full, rows.count - start)
        num_rows = next(rounded(height) for height in (*_SMALL_BATCHES, full) if count <= min(rounded(height), full))
        part = Rows(rows.row[chosen] - start, rows.segment[chosen], rows.start[chosen], count)
        laid_out = lay_out([texts[i] for i in chosen], part, row_tokens=width, num_rows=min(num_rows, full))
        tokens, segments, places = laid_out
        yield RowBatch(tokens, segments, numbers[chosen], places)
