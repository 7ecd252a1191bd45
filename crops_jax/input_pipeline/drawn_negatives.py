"""Negatives that were drawn for the queries of some batches, as documents of the split "documents" of the records."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from crops_jax.errors import InputError
from crops_jax.hashing import seed_hash, splitmix64
from crops_jax.records import RecordSource
from crops_jax.records.text_index import DOCUMENT_COLUMNS, text_index_path


@dataclass(frozen=True, kw_only=True)
class DrawnNegatives:
    """The drawn negatives of successive queries of a run, which follow the positives of a query in a batch."""

    documents: RecordSource
    """The split of all documents."""
    first_position: int
    """The position in the run of the first of these queries."""
    numbers: Int32[np.ndarray, "positions columns"]
    """The numbers of the documents; the last ones of a row are -1 if fewer were drawn."""

    @staticmethod
    def at_random(
        documents: RecordSource, *, first_position: int, positions: int, columns: int, seed: int
    ) -> "DrawnNegatives":
        """Returns random documents for some queries, from which the size of batches can be measured beforehand."""
        places = np.arange(positions * columns, dtype=np.uint64).reshape(positions, columns)
        bits = splitmix64(splitmix64(places + np.uint64(first_position * columns)) ^ seed_hash(seed))
        numbers = (bits % np.uint64(len(documents))).astype(np.int32)
        return DrawnNegatives(documents=documents, first_position=first_position, numbers=numbers)

    def of(self, positions: Int64[np.ndarray, "B"]) -> Int32[np.ndarray, "B columns"]:
        """Returns the numbers of the negatives of the queries at these positions of the run."""
        return self.numbers[positions - self.first_position]

    def texts(self, numbers: Int32[np.ndarray, "some"]) -> Int32[np.ndarray, "some 4"]:
        """Returns the ids, levels and lengths of documents, as crops_jax.records.text_index has them."""
        return self.documents.text_index.texts(numbers).documents.reshape(-1, DOCUMENT_COLUMNS)

    def tokens(self, numbers: list[int], *, threads: int) -> list[Int32[np.ndarray, "tokens"]]:
        """Returns the tokens of documents. Raises InputError if they are not those of the text index."""
        records = self.documents.read(numbers, threads=threads)
        found = [record.document_tokens[0] for record in records]
        for number, tokens, indexed in zip(numbers, found, self.texts(np.array(numbers, np.int32))[:, 3], strict=True):
            if len(tokens) != indexed:
                file, at = self.documents.locate(number)
                raise InputError(
                    f"{file}: document {at} has another text than {text_index_path(file).name} says; remove that "
                    "file, or write the records again"
                )
        return found
