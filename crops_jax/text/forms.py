"""The forms that texts take on their way into labels and encoders."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

# The paper's order (section "Encoder"): each field as far as the token limit lets it.
DOCUMENT_FIELDS = ("title", "keywords", "cover_text", "text")

# Chinese, Japanese and Korean scripts are written without blanks between words: one character is one unit there.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])\w)+")
_STARTS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def normalise_query(query: str) -> str:
    """Unicode NFKC, lower case, white space folded to one blank and trimmed: the key and the encoder's form."""
    lower = unicodedata.normalize("NFKC", query).lower()
    # Some small letters have a composed form where their capitals have none: J and a caron, H and a macron below.
    return " ".join(unicodedata.normalize("NFKC", lower).split())


def document_text(document: Mapping[str, str | None]) -> str:
    """The encoder's text of a document: title, keywords, cover_text and text, those that are there, by blanks."""
    return " ".join(" ".join(value.split()) for field in DOCUMENT_FIELDS if (value := document.get(field)))


def words(text: str) -> list[str]:
    """Lower-cased words for lexical matching; character bigrams where a script has no blanks (a lone one as it is)."""
    found = []
    for run in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if _STARTS_UNSPACED.match(run) and len(run) > 1:
            found.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            found.append(run)
    return found


def distinct(*sequences: Sequence[str]) -> tuple:
    """The distinct texts of all sequences in order of first appearance, then each sequence as indices into them."""
    place: dict[str, int] = {}
    indices = [
        np.fromiter((place.setdefault(text, len(place)) for text in sequence), np.int64, len(sequence))
        for sequence in sequences
    ]
    return (list(place), *indices)


def trigrams(texts: Sequence[str]) -> tuple[Int64[np.ndarray, "trigrams"], Int64[np.ndarray, "trigrams"]]:
    """Every character trigram of every text, a blank set before and after it.

    Returns:
      (row, code): which text, ascending, and the trigram as three code points of 21 bits.
    """
    padded = [f" {text} " if text else "" for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    row = np.repeat(np.arange(len(padded)), np.fromiter(map(len, padded), np.int64, len(padded)))
    inside = row[:-2] == row[2:]
    code = (points[:-2] << 42 | points[1:-1] << 21 | points[2:])[inside]
    return row[:-2][inside], code
