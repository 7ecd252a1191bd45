import sys
import unicodedata

import pytest

from crops_jax.text import document_text, normalise_query, words


def test_normalise_query_folds_width_case_and_white_space():
    assert normalise_query("  ＸＢＯＸ\t360\u00a0 Game\n") == "xbox 360 game"


INVISIBLE = {
    "zero width": "\u200b\u200c\u200d\u2060",
    "byte order mark": "\ufeff",
    "bidi marks": "\u200e\u200f\u061c\u202a\u202c\u202e\u2066\u2069",
    "soft hyphen": "\u00ad",
}


@pytest.mark.parametrize("case", INVISIBLE)
def test_invisible_characters_do_not_make_another_query(case):
    marks = INVISIBLE[case]
    for typed in (f"{marks}Red shoe", f"red{marks} shoe", f"re{marks}d sh{marks}oe", f"red {marks} shoe{marks}"):
        assert normalise_query(typed) == "red shoe"
        assert words(typed) == ["red", "shoe"]
    assert normalise_query(marks) == normalise_query(f" {marks} ") == ""
    # A letter and its accent are one, although a mark stood between them.
    assert normalise_query(f"e{marks}\u0301") == "\u00e9"


def test_joiners_of_persian_and_of_emoji_are_removed():
    assert normalise_query("\u0645\u06cc\u200c\u0631\u0648\u0645") == "\u0645\u06cc\u0631\u0648\u0645"
    assert normalise_query("\U0001f469\u200d\U0001f680") == "\U0001f469\U0001f680"


def test_no_normal_form_has_a_format_character_and_every_form_stays():
    for point in range(sys.maxunicode + 1):
        if not 0xD800 <= point < 0xE000:
            normal = normalise_query(f"a{chr(point)}b")
            if not normal.isascii():
                assert not any(unicodedata.category(character) == "Cf" for character in normal), hex(point)
                assert normalise_query(normal) == normal, hex(point)


def test_what_is_normalised_stays_as_it_is():
    # Capitals without a composed form whose small letters have one: J and a caron, H and a macron below, T, W, Y.
    for query in ("J\u030c", "H\u0331", "T\u0308", "W\u030a", "\u0130\u0316", "\u1e9e\u03a3", "\u00a8x"):
        normal = normalise_query(f"shoes {query}")
        assert normalise_query(normal) == normal
    assert normalise_query("J\u030c") == normalise_query("\u01f0") == "\u01f0"


def test_document_text_keeps_the_papers_order_and_skips_what_is_absent():
    document = {"text": "body  text", "title": "Title", "keywords": None, "cover_text": "cover", "doc_id": "7"}
    assert document_text(document) == "Title cover body text"


def test_words_takes_bigrams_where_a_script_has_no_blanks():
    assert words("Red-wine 手机壳 x") == ["red", "wine", "手机", "机壳", "x"]
    assert words("茶") == ["茶"]
    assert words("iPhone手机") == ["iphone", "手机"]
