"""Answers that repeat the prompt: the instructions' words, a line of the question, or the example handed back."""

from collections.abc import Iterable, Sequence

from crops_jax.discriminator.similarity import TrigramSimilarity
from crops_jax.text import document_text, words
from data.language_model.prompt import Prompt, Request

_RUN = 8
_SHORTEST_PIECE = 3
_PLACES = ("$query", "$example", "$number", "$documents", "[example]")


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
