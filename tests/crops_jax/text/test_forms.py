from crops_jax.text import document_text, normalise_query, words


def test_normalise_query_folds_width_case_and_white_space():
    assert normalise_query("  ＸＢＯＸ\t360\u00a0 Game\n") == "xbox 360 game"


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
