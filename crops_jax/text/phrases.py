"""Words of a text together with what stands between them, so that a phrase can be taken out of the text."""

import re
import unicodedata
from collections.abc import Sequence

from crops_jax.text.forms import UNSPACED, normalise_query

# Each character of a script without blanks is a word of its own here.
_PIECE = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+|\W+")


def pieces(text: str) -> list[str]:
    """Returns a text in pieces, each of which is one word or all characters between two words.

    Joined, the pieces are the text in Unicode NFC.
    """
    return _PIECE.findall(unicodedata.normalize("NFC", text))


def is_word(piece: str) -> bool:
    """Returns whether a piece is a word."""
    return piece[0].isalnum() or piece[0] == "_"


def word_keys(texts: Sequence[str]) -> list[str]:
    """Returns the words among pieces in the form in which two words are compared: Unicode NFKC in lower case."""
    return [normalise_query(piece) for piece in texts if is_word(piece)]


def without_phrase(text: str, phrase: str) -> str:
    """Returns a text without the words of a phrase, wherever they stand in it one after the other.

    Words are compared in Unicode NFKC in lower case, and punctuation and white space between them do not count, so that
    "red shoe" is taken out of "A Red-Shoe, new". What is left does not contain the phrase either, and white space in it
    is folded to one blank and trimmed. A phrase without a word changes nothing else.
    """
    wanted = word_keys(pieces(phrase))
    kept: list[str] = []
    words: list[tuple[str, int]] = []
    for piece in pieces(text):
        if is_word(piece):
            words.append((normalise_query(piece), len(kept)))
        kept.append(piece)
        if wanted and [key for key, _ in words[-len(wanted) :]] == wanted and is_word(piece):
            del kept[words[-len(wanted)][1] :]
            del words[-len(wanted) :]
    return " ".join("".join(kept).split())
