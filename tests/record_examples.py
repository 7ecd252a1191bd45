"""Training records of made-up numbers, for the tests of records and batches."""

import numpy as np

from crops_jax.records import QueryRecord

CLS, SEP = 2, 3


def example(number: int, *, documents: int = 3, labelled: int | None = None, tokens: int = 4) -> QueryRecord:
    """A record that can be told from others: its query holds 10 + number, its documents' ids begin with number + 1."""
    labelled = documents + 1 if labelled is None else labelled
    ids = np.array([[number + 1, place + 1] for place in range(max(documents, labelled))], np.int32).reshape(-1, 2)
    levels = np.array([5 - place % 5 for place in range(len(ids))], np.int32)
    return QueryRecord(
        query_tokens=np.array([CLS, 10 + number, SEP], np.int32),
        document_ids=ids[:documents],
        document_levels=levels[:documents],
        document_tokens=tuple(
            np.array([CLS] + [100 * (number + 1) + place] * (tokens - 2) + [SEP], np.int32)
            for place in range(documents)
        ),
        labelled_ids=ids[:labelled],
        labelled_levels=levels[:labelled],
    )


def assert_equal(found: QueryRecord, expected: QueryRecord) -> None:
    """Same values, all int32 but the scores."""
    assert len(found.document_tokens) == len(expected.document_tokens)
    for one, other in zip(_arrays(found), _arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == (np.float32 if one is found.labelled_scores else np.int32)


def _arrays(record: QueryRecord) -> list[np.ndarray]:
    return [*record.document_tokens, *(value for value in record if isinstance(value, np.ndarray))]
