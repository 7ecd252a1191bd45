"""A query and a document in one row of tokens, with the special tokens that a tokenizer puts around two texts.

With BERT's tokenizer the row is [CLS] query [SEP] document [SEP].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from crops_jax.errors import InputError
from crops_jax.text.forms import distinct, normalise_query
from crops_jax.text.packing import PADDING_TOKEN
from crops_jax.text.tokenizer import Tokenizer

# Any tokenizer makes at least one token of each of these two texts; all other tokens belong to its frame.
_PROBE = ("a", "a")
_WIDTHS = 4
_WIDTH_MULTIPLE = 16


class Frame(NamedTuple):
    """The special tokens that a tokenizer puts before, between and after two texts.

    types: the token types of the five parts: before, first text, between, second text, after.
    """

    before: Int32[np.ndarray, "special"]
    between: Int32[np.ndarray, "special"]
    after: Int32[np.ndarray, "special"]
    types: tuple[list[int], int, list[int], int, list[int]]

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> "Frame":
        """Returns the frame of a tokenizer.

        Raises InputError when the tokenizer puts no token before the texts or none between them.
        """
        encoding = tokenizer.encode_pair(*_PROBE)
        ids, types = encoding.ids, encoding.type_ids
        texts = encoding.sequence_ids
        first = [position for position, text in enumerate(texts) if text == 0]
        second = [position for position, text in enumerate(texts) if text == 1]
        if not first or not second or first[0] == 0 or second[0] == first[-1] + 1:
            raise InputError(
                "the tokenizer sets two texts without a token before the first or between them, as [CLS] and [SEP] "
                "are; a cross-encoder needs both: give another --tokenizer"
            )
        parts = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)
        before, between, after = (np.array(ids[part], np.int32) for part in parts)
        kinds = types[parts[0]], types[first[0]], types[parts[1]], types[second[0]], types[parts[2]]
        return cls(before, between, after, kinds)

    @property
    def tokens(self) -> int:
        """The number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)


class TokenizedPairs:
    """Pairs of texts. Each distinct text is tokenised once; `rows` lays out the pairs that it is called for.

    lengths: the number of tokens of each pair, special tokens included.
    """

    def __init__(self, queries: Sequence[str], documents: Sequence[str], *, tokenizer: Tokenizer, max_tokens: int):
        """
        Args:
          queries: the query of each pair, in any form; it is normalised here.
          documents: the document of each pair, as crops_jax.text.document_text returns it.
          max_tokens: the maximum number of tokens of a pair. The query is kept whole first, then the document, so that
            a query loses its end only when it alone is too long.

        Raises:
          InputError: `max_tokens` leaves no room beside the special tokens.
        """
        self.max_tokens = max_tokens
        self._frame = Frame.from_tokenizer(tokenizer)
        room = max_tokens - self._frame.tokens
        if room < 2:
            raise InputError(f"{max_tokens} tokens a pair leave no room beside {self._frame.tokens} special ones")
        query_texts, self._query = distinct(queries)
        document_texts, self._document = distinct(documents)
        normalised = [normalise_query(query) for query in query_texts]
        self._queries = tokenizer.encode_bare(normalised, max_tokens=room)
        self._documents = tokenizer.encode_bare(document_texts, max_tokens=room)
        lengths = _lengths(self._queries)[self._query] + _lengths(self._documents)[self._document]
        self.lengths = np.minimum(lengths, room) + self._frame.tokens

    def __len__(self) -> int:
        return len(self._query)

    @property
    def greatest_token(self) -> int:
        """The greatest token id of all pairs, special tokens included."""
        rows = [row.max() for row in (*self._queries, *self._documents, *self._frame[:3]) if len(row)]
        return int(max(rows, default=0))

    def rows(
        self, pairs: Int64[np.ndarray, "rows"], *, width: int
    ) -> tuple[Int32[np.ndarray, "rows width"], Int32[np.ndarray, "rows width"]]:
        """Returns the tokens, padded with -1, and the token types of some pairs; pair -1 is a row of padding."""
        tokens = np.full((len(pairs), width), PADDING_TOKEN, np.int32)
        types = np.zeros((len(pairs), width), np.int32)
        before, between, after, kinds = self._frame
        for row, pair in enumerate(pairs):
            if pair < 0:
                continue
            query, document = self._queries[self._query[pair]], self._documents[self._document[pair]]
            document = document[: self.max_tokens - self._frame.tokens - len(query)]
            start = 0
            for part, kind in zip((before, query, between, document, after), kinds, strict=True):
                tokens[row, start : start + len(part)] = part
                types[row, start : start + len(part)] = kind
                start += len(part)
        return tokens, types


def pair_row_widths(max_tokens: int) -> tuple[int, ...]:
    """Returns the widths to which rows of pairs are padded, ascending. Four widths at most keep compilations few."""
    steps = (max_tokens * part / _WIDTHS for part in range(1, _WIDTHS + 1))
    return tuple(sorted({min(-(-int(step) // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE, max_tokens) for step in steps}))


def pair_row_width(length: int, max_tokens: int) -> int:
    """Returns the smallest of `pair_row_widths` that holds a pair of `length` tokens."""
    return next(width for width in pair_row_widths(max_tokens) if width >= length)


def _lengths(rows: Sequence[np.ndarray]) -> Int64[np.ndarray, "rows"]:
    return np.fromiter(map(len, rows), np.int64, len(rows))
