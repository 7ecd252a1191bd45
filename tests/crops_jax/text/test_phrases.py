"""Phrases that are taken out of texts; the expected results are written by hand, or found by another definition."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crops_jax.text.phrases import pieces, without_phrase, word_keys

TEXTS = st.text(alphabet="aAbBé红鞋 .-\n", max_size=30)


def contains(text, phrase):
    """Whether the words of a phrase stand in a text one after the other: by the definition, at every place."""
    words, wanted = word_keys(pieces(text)), word_keys(pieces(phrase))
    return bool(wanted) and any(words[i : i + len(wanted)] == wanted for i in range(len(words)))


@pytest.mark.parametrize(
    ("text", "phrase", "left"),
    [
        ("A Red-Shoe, new", "red shoe", "A , new"),
        ("redshoe and red shoes", "red shoe", "redshoe and red shoes"),
        ("Red  SHOE", "red shoe", ""),
        # The second phrase appears only when the first one is gone.
        ("a a b b c", "a b", "c"),
        ("a a a", "a a", "a"),
        ("买红鞋子吗", "红鞋", "买子吗"),
        ("ＲＥＤ shoe", "red", "shoe"),
        (unicodedata.normalize("NFD", "un café noir"), "Café", "un noir"),
        ("  kept\nas  it is ", "", "kept as it is"),
        ("kept!", "?!", "kept!"),
        ("", "a", ""),
    ],
)
def test_a_phrase_is_taken_out_by_words(text, phrase, left):
    assert without_phrase(text, phrase) == left


@given(TEXTS)
def test_the_pieces_of_a_text_are_the_text(text):
    assert "".join(pieces(text)) == unicodedata.normalize("NFC", text)


@given(TEXTS, TEXTS)
def test_what_is_left_never_contains_the_phrase(text, phrase):
    left = without_phrase(text, phrase)
    assert not contains(left, phrase)
    if not contains(text, phrase):
        assert left == " ".join(unicodedata.normalize("NFC", text).split())
