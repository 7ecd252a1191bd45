"""Pairs as rows of tokens: the tokenizer's own frame, truncation, widths."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from crops_jax.errors import InputError
from crops_jax.text import tokenizer
from crops_jax.text.pair_tokens import TokenizedPairs, pair_row_width, pair_row_widths
from crops_jax.text.tokenizer import Tokenizer
from crops_jax.text.wordpiece import learn_wordpiece
from tests.model_folders import VOCABULARY, write_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return tokenizer.load(folder)


def ids(*tokens):
    return [VOCABULARY.index(token) for token in tokens]


def row(pairs, pair, width):
    tokens, types = pairs.rows(np.array([pair]), width=width)
    return tokens[0].tolist(), types[0].tolist()


def test_a_pair_is_what_the_tokenizer_makes_of_two_texts(words):
    pairs = TokenizedPairs(["RED  Shoe", "red"], ["the blue lamp", ""], tokenizer=words, max_tokens=12)
    assert pairs.lengths.tolist() == [8, 4]
    expected = words.encode_pair("red shoe", "the blue lamp")
    tokens, types = row(pairs, 0, 8)
    assert tokens == expected.ids
    assert types == expected.type_ids
    assert row(pairs, 1, 6) == (ids("[CLS]", "red", "[SEP]", "[SEP]") + [-1, -1], [0, 0, 0, 1, 0, 0])
    assert row(pairs, -1, 3) == ([-1, -1, -1], [0, 0, 0])


def test_the_document_is_cut_first_and_the_query_only_where_it_alone_is_too_long(words):
    queries, documents = ["red shoe", "red " * 9, "red " * 20], ["blue " * 20] * 3
    pairs = TokenizedPairs(queries, documents, tokenizer=words, max_tokens=12)
    assert pairs.lengths.tolist() == [12, 12, 12]
    assert row(pairs, 0, 12)[0] == ids("[CLS]", "red", "shoe", "[SEP]", *["blue"] * 7, "[SEP]")
    assert row(pairs, 1, 12)[0] == ids("[CLS]", *["red"] * 9, "[SEP]", "[SEP]")
    assert row(pairs, 2, 12)[0] == ids("[CLS]", *["red"] * 9, "[SEP]", "[SEP]")


def test_a_vocabulary_that_is_learnt_frames_pairs_as_bert_does():
    learnt = Tokenizer(learn_wordpiece(lambda: ["red shoe", "blue lamp"], vocabulary_size=60))
    pairs = TokenizedPairs(["red"], ["blue"], tokenizer=learnt, max_tokens=16)
    tokens, types = row(pairs, 0, int(pairs.lengths[0]))
    assert [tokens[0], tokens[-1]] == [2, 3]
    assert types[0] == 0
    assert types[-1] == 1
    assert sorted(types) == types


def test_a_tokenizer_without_special_tokens_is_refused():
    bare = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="without a token before the first or between them"):
        TokenizedPairs(["a"], ["a"], tokenizer=Tokenizer(bare), max_tokens=8)
    bare.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 2)]
    )
    with pytest.raises(InputError, match="without a token before the first or between them"):
        TokenizedPairs(["a"], ["a"], tokenizer=Tokenizer(bare), max_tokens=8)


@pytest.mark.parametrize("max_tokens", [8, 10, 48, 100, 128, 512])
def test_rows_have_at_most_four_widths_and_hold_every_length(max_tokens):
    widths = pair_row_widths(max_tokens)
    assert len(widths) <= 4
    assert widths[-1] == max_tokens
    for length in range(1, max_tokens + 1):
        width = pair_row_width(length, max_tokens)
        assert width >= length
        assert all(narrower < length for narrower in widths if narrower < width)
