"""The forms of texts in labels and encoders: normalised queries, document texts, words and trigrams."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

# The fields in the paper's order (section "Encoder"). What exceeds the token limit is cut at the end.
DOCUMENT_FIELDS = ("title", "keywords", "cover_text", "text")

# Chinese, Japanese and Korean scripts are written without blanks between words, so one character is one unit.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{UNSPACED}]+|(?:(?![{UNSPACED}])\w)+")
_STARTS_UNSPACED = re.compile(rf"[{UNSPACED}]")


QUERY_FORM = 2
"""The number of the form that `normalise_query` returns, for fingerprints; 1 kept format characters."""


def normalise_query(query: str) -> str:
    """Returns the form of a query that is its key and that the encoder reads.

    That is Unicode NFKC in lower case, without format characters (Unicode category Cf), with white space folded to one
    blank and trimmed. Format characters are invisible: byte order marks, zero-width blanks, marks of direction, soft
    hyphens, and the joiners (U+200C, U+200D), which people type or leave out.
    """
    lower = unicodedata.normalize("NFKC", without_format(query)).lower()
    # Some lower-case letters have a composed form that their capitals lack: J with a caron, H with a macron below.
    return " ".join(unicodedata.normalize("NFKC", lower).split())


def without_format(text: str) -> str:
    """Returns a text without the characters of the Unicode category Cf."""
    if text.isascii():
        return text
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def document_text(document: Mapping[str, str | None]) -> str:
    """Returns the text of a document for the encoder: its title, keywords, cover_text and text, joined by blanks."""
    return " ".join(" ".join(value.split()) for field in DOCUMENT_FIELDS if (value := document.get(field)))


def words(text: str) -> list[str]:
    """Returns lower-case words for lexical matching, without format characters, as in `normalise_query`.

    A run of characters of a script without blanks gives its character bigrams, or itself if it is one character.
    """
    terms = []
    for run in _WORD.findall(unicodedata.normalize("NFKC", without_format(text)).lower()):
        if _STARTS_UNSPACED.match(run) and len(run) > 1:
            terms.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            terms.append(run)
    return terms


def distinct(*sequences: Sequence[str]) -> tuple:
    """Returns the distinct texts of all sequences in order of first appearance, then each sequence as indices."""
    position: dict[str, int] = {}
    indices = [
        np.fromiter((position.setdefault(text, len(position)) for text in sequence), np.int64, len(sequence))
        for sequence in sequences
    ]
    return (list(position), *indices)


def trigrams(texts: Sequence[str]) -> tuple[Int64[np.ndarray, "trigrams"], Int64[np.ndarray, "trigrams"]]:
    """Finds every character trigram of every text, with a blank put before and after the text.

    Returns:
      (row, code): for each trigram the index of its text, ascending, and its three code points of 21 bits in one
      number.
    """
    padded = [f" {text} " if text else "" for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    row = np.repeat(np.arange(len(padded)), np.fromiter(map(len, padded), np.int64, len(padded)))
    inside = row[:-2] == row[2:]
    code = (points[:-2] << 42 | points[1:-1] << 21 | points[2:])[inside]
    return row[:-2][inside], code
