"""Answers that are left out: those that repeat the prompt, and near-duplicates of documents that were kept.

Of any number of texts MinHash finds the candidates for near-duplicates, and the trigram cosine decides.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from crops_jax.discriminator.similarity import TrigramSimilarity
from crops_jax.text import document_text, words
from crops_jax.text.forms import trigrams
from data.language_model.prompt import Prompt, Request

# 24 bands of 3: two texts whose trigram sets overlap by half meet with probability .96, at .7 and more almost surely.
_BANDS, _ROWS = 24, 3
# Documents of one pattern would fill a bucket; a text is compared with the newest of each.
_BUCKET = 32
# Words of the instructions that make an echo when they stand in a row, and of the shortest piece that is looked for.
_RUN, _SHORTEST_PIECE = 8, 3
_PLACES = ("$query", "$example", "$number", "$documents", "[example]")


class NearDuplicates:
    """Remembers the texts that were kept, and says which new ones are as like one of them.

    Args:
      similarity: the cosine of character-trigram counts from which on two texts are duplicates.
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
        """For each text in order, whether it is new; it is then compared with what follows."""
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
            # Multiply, fold, multiply, and take the high half; the products wrap around by intention.
            product = code * factor + offset
            hashed = ((product ^ (product >> np.uint64(32))) * factor) >> np.uint64(32)
            minima[:, number] = np.minimum.reduceat(hashed, starts)
        bands: list[list[bytes]] = [[] for _ in texts]
        for place, signature in zip(present.tolist(), minima.reshape(len(present), _BANDS, _ROWS), strict=True):
            bands[place] = [bytes([number]) + band.tobytes() for number, band in enumerate(signature)]
        return bands


class EchoDetector:
    """Finds the text of one prompt in documents.

    An echo is a run of eight words of the instructions (all of a shorter piece, from three words), a line of the
    question with the query filled in, a place that was not filled in, or a document as like the example as duplicates
    are.
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
        """Whether a document, given as its fields, repeats the prompt of its request."""
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
        # A short title in common is no copy; a whole text is.
        if example.get("text"):
            pairs += [(example["text"], text) for text in texts if text]
        left, right = zip(*((a.lower(), b.lower()) for a, b in pairs))
        return bool((self._similarity.score(left, right) >= self._duplicate).any())


def _grams(found: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return zip(*(found[start:] for start in range(length)))
