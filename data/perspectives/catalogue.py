"""Pairs of a query and a document that one document of the catalogue gives, for the pre-training of an encoder.

The title is the query, and what the document says beside its title is what should be found. A document that has only
one of them is divided: one half of its words is the query, and the other half is the document. That is the inverse
cloze task (Lee et al. 2019, arXiv 1906.00300), with a half in the place of a sentence. No log and no judgement is read.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

from crops_jax.text import document_text, normalise_query
from crops_jax.text.phrases import is_word, pieces, without_phrase


class CataloguePair(NamedTuple):
    """A query in its normal form, the text of the document that it should find, and which part the query was."""

    query: str
    text: str
    kind: Literal["title", "half"]


def catalogue_pair(document: Mapping[str, str | None]) -> CataloguePair | None:
    """Returns the pair that a document gives, or None if it has too few words.

    The words of the query never stand one after the other in the text, because an encoder would learn to compare words
    and nothing else.

    Args:
      document: doc_id and the columns of a document's text (crops_jax.text.DOCUMENT_FIELDS).
    """
    title = _readable(document["title"] or "")
    body = document_text({**document, "title": None})
    if rest := _beside(title, body):
        return CataloguePair(normalise_query(title), rest, "title")
    query, other = _halves(title if _has_words(title) else body, first=_first_half(document["doc_id"] or ""))
    if _has_words(query) and (rest := _beside(query, other)):
        return CataloguePair(normalise_query(query), rest, "half")
    return None


def _beside(query: str, text: str) -> str:
    """Returns the text without the query, or nothing if one of them has no words."""
    rest = without_phrase(text, query)
    return rest if _has_words(query) and _has_words(rest) else ""


def _halves(text: str, *, first: bool) -> tuple[str, str]:
    """Returns half of the words, rounded down, from the beginning or the end of a text, and the other words."""
    parts = pieces(_readable(text))
    words = [number for number, piece in enumerate(parts) if is_word(piece)]
    half = len(words) // 2
    if not half:
        return "", text
    cut = words[half if first else len(words) - half]
    begin, end = "".join(parts[:cut]), "".join(parts[cut:])
    return (begin, end) if first else (end, begin)


def _first_half(doc_id: str) -> bool:
    """Returns whether the query is the first half of a document, which its id decides."""
    return hashlib.sha256(doc_id.encode()).digest()[0] % 2 == 0


def _has_words(text: str) -> bool:
    return any(map(is_word, pieces(text)))


def _readable(text: str) -> str:
    # A query must not hold this character (data.tables).
    return text.replace("\0", " ")
