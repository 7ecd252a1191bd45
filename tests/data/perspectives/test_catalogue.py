"""Pairs from single documents; the document side never has the words of the query one after the other."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.perspectives.catalogue import CataloguePair, catalogue_pair

FIELDS = ("keywords", "cover_text", "text")


def document(title="", *, doc_id="d0", **fields):
    return {"doc_id": doc_id, "title": title, **dict.fromkeys(FIELDS), **fields}


@pytest.mark.parametrize(
    ("given_document", "pair"),
    [
        (
            document("A  Red Shoe", keywords="shoe, red", cover_text="sale", text="Buy a red shoe. It is red."),
            CataloguePair("a red shoe", "shoe, red sale Buy . It is red.", "title"),
        ),
        # The id decides which half of the words is the query.
        (document("one two three four five", doc_id="d4"), CataloguePair("four five", "one two three", "half")),
        (document("one two three four five", doc_id="d0"), CataloguePair("one two", "three four five", "half")),
        (document("", text="one, two three", doc_id="d0"), CataloguePair("one,", "two three", "half")),
        (document("!", text="one two", doc_id="d0"), CataloguePair("one", "two", "half")),
        # The text only repeats the title, so the title is divided.
        (document("red shoe", text="Red shoe!", doc_id="d0"), CataloguePair("red", "shoe", "half")),
        (document("红鞋子店", doc_id="d0"), CataloguePair("红鞋", "子店", "half")),
        (document("a\0b", text="c"), CataloguePair("a b", "c", "title")),
        (document("shoe"), None),
        (document("shoe shoe"), None),
        (document("", text="..."), None),
        (document(), None),
    ],
)
def test_a_document_gives_the_pair_worked_out_by_hand(given_document, pair):
    assert catalogue_pair(given_document) == pair


SHORT = st.text(alphabet="abAB红鞋 .-\0", max_size=12)


@given(SHORT, st.none() | SHORT, st.none() | SHORT, st.none() | SHORT, st.sampled_from(["d4", "d0"]))
def test_the_query_is_never_in_the_document(title, keywords, cover_text, text, doc_id):
    pair = catalogue_pair(document(title, doc_id=doc_id, keywords=keywords, cover_text=cover_text, text=text))
    if pair is None:
        return
    query, found = (re.findall("[ab]+|[红鞋]", side.lower()) for side in (pair.query, pair.text))
    assert query
    assert found
    assert all(found[i : i + len(query)] != query for i in range(len(found)))
    assert pair.query == " ".join(pair.query.replace("\0", " ").lower().split())
