"""Filters of answers: those that repeat the prompt and near-duplicates of kept documents are left out.

MinHash finds the candidates for near-duplicates among any number of texts, and the trigram cosine decides.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from crops_jax.discriminator.similarity import TrigramSimilarity
from crops_jax.text import document_text, words
from crops_jax.text.forms import trigrams
from data.language_model.prompt import Prompt, Request

# 24 bands of 3: two texts whose trigram sets have a Jaccard similarity of .5 share a band with probability .96, and
# almost surely if it is .7 or more.
_BANDS, _ROWS = 24, 3
# Documents of one pattern would fill a bucket; a text is compared only with the newest texts of each bucket.
_BUCKET = 32
# The number of consecutive words of the instructions that make an echo, and the minimum words of a piece to search for.
_RUN, _SHORTEST_PIECE = 8, 3
_PLACES = ("$query", "$example", "$number", "$documents", "[example]")


class NearDuplicates:
    """A detector of near-duplicates that keeps the accepted texts and compares new ones with them.

    Args:
      similarity: the minimum cosine of character-trigram counts at which two texts are duplicates.
    """

    def __init__(self, *, similarity: float):
        self._threshold = similarity
        self._cosine = TrigramSimilarity()
        self._texts: list[str] = []
        self._buckets: dict[bytes, list[int]] = {}
        random = np.random.default_rng(0)
        self._factors = random.integers(1, 1 << 63, _BANDS * _ROWS, np.uint64) | np.uint64(1)
        self._offsets = random.integers(0, 1 << 63, _BANDS * _ROWS, np.uint64)

    def keep(self, texts: Sequence[str]) -> list[bool]:
        """Returns for each text in order whether it is new; a new text is compared with the texts after it."""
        texts = [" ".join(text.lower().split()) for text in texts]
        return [self._keep(text, bands) for text, bands in zip(texts, self._bands(texts), strict=True)]

    def _keep(self, text: str, bands: list[bytes]) -> bool:
        others = sorted({place for band in bands for place in self._buckets.get(band, ())})
        if others:
            scores = self._cosine.score([text] * len(others), [self._texts[place] for place in others])
            if (scores >= self._threshold).any():
                return False
        for band in bands:
            bucket = self._buckets.setdefault(band, [])
            bucket.append(len(self._texts))
            del bucket[:-_BUCKET]
        self._texts.append(text)
        return True

    def _bands(self, texts: Sequence[str]) -> list[list[bytes]]:
        row, code = trigrams(texts)
        if not len(row):
            return [[] for _ in texts]
        present, starts = np.unique(row, return_index=True)
        code = code.astype(np.uint64)
        minima = np.empty((len(present), _BANDS * _ROWS), np.uint32)
        for number, (factor, offset) in enumerate(zip(self._factors, self._offsets, strict=True)):
            # The hash multiplies, folds, multiplies, and takes the high half; the products overflow intentionally.
            product = code * factor + offset
            hashed = ((product ^ (product >> np.uint64(32))) * factor) >> np.uint64(32)
            minima[:, number] = np.minimum.reduceat(hashed, starts)
        bands: list[list[bytes]] = [[] for _ in texts]
        for place, signature in zip(present.tolist(), minima.reshape(len(present), _BANDS, _ROWS), strict=True):
            bands[place] = [bytes([number]) + band.tobytes() for number, band in enumerate(signature)]
        return bands


class EchoDetector:
    """A detector of documents that repeat the text of one prompt (an echo).

    An echo is one of these: eight consecutive words of the instructions (or all words of a shorter piece of at least
    three words), a line of the request with the query filled in, a placeholder, or a document that is a near-duplicate
    of the example.
    """

    def __init__(self, prompt: Prompt, *, duplicate_similarity: float):
        self._runs: dict[int, set[tuple[str, ...]]] = {}
        for piece in prompt.instructions:
            own = words(piece)
            length = min(_RUN, len(own))
            if length >= _SHORTEST_PIECE:
                self._runs.setdefault(length, set()).update(_grams(own, length))
        self._similarity = TrigramSimilarity()
        self._duplicate = duplicate_similarity

    def is_echo(self, request: Request, texts: Sequence[str]) -> bool:
        """Returns whether a document repeats the prompt of its request. texts: the fields of the document."""
        if any(place in text for place in _PLACES for text in texts):
            return True
        for text in texts:
            found = words(text)
            if any(gram in runs for length, runs in self._runs.items() for gram in _grams(found, length)):
                return True
            if any(line in set(_grams(found, len(line))) for line in request.lines):
                return True
        return request.example is not None and self._is_copy(request.example, texts)

    def _is_copy(self, example, texts: Sequence[str]) -> bool:
        shown, written = document_text(example), " ".join(texts)
        pairs = [(shown, written)]
        # A short common title does not make a copy, but a whole common text does.
        if example.get("text"):
            pairs += [(example["text"], text) for text in texts if text]
        left, right = zip(*((a.lower(), b.lower()) for a, b in pairs))
        return bool((self._similarity.score(left, right) >= self._duplicate).any())


def _grams(found: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return zip(*(found[start:] for start in range(length)))
