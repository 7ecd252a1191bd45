"""Learns a WordPiece vocabulary whose tokens and ids depend only on the texts.

The trainer of Hugging Face's `tokenizers` numbers the characters inside words ("##a") in the order of a hash table
that differs from run to run, and breaks ties between merges by these numbers. So two vocabularies of the same texts
differ, with and without TOKENIZERS_PARALLELISM. This module collects the characters in a first pass and passes them to
a second one in sorted order, as if they were special tokens. Then the vocabulary is the same in every run.
"""

import collections
from collections.abc import Callable, Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from crops_jax.errors import InputError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUATION = "##"


def learn_wordpiece(texts: Callable[[], Iterable[str]], *, vocabulary_size: int) -> Tokenizer:
    """Learns a lower-casing BERT tokenizer from texts; the same texts in any order give the same tokenizer.

    The most frequent characters and their forms inside words take at most three quarters of the vocabulary. A word with
    another character becomes [UNK].

    Args:
      texts: returns all texts each time it is called.
      vocabulary_size: the maximum number of tokens, special ones included. Few texts give fewer tokens.

    Raises:
      InputError: the vocabulary size is below its minimum, or there is no text.
    """
    if vocabulary_size < 4 * len(SPECIAL_TOKENS):
        raise InputError(f"a vocabulary needs at least {4 * len(SPECIAL_TOKENS)} tokens, found {vocabulary_size}")
    ranked = _characters(texts())
    if not ranked:
        raise InputError("there is no text to learn a vocabulary from; give a tokenizer")
    # Scripts without blanks between words have many characters, but few with a form inside words. So half of the
    # vocabulary goes to characters if their forms fit as well.
    for share in (vocabulary_size // 2, vocabulary_size // 4):
        alphabet = sorted(ranked[:share])
        units = _units(texts(), alphabet)
        if len(units) <= vocabulary_size * 3 // 4:
            break
    fixed = [*SPECIAL_TOKENS, *units]
    trained = _train(texts(), vocabulary_size=vocabulary_size, special_tokens=fixed, alphabet=alphabet)
    vocabulary = trained.get_vocab(with_added_tokens=False)
    finished = _bert(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=_CONTINUATION))
    finished.add_special_tokens(list(SPECIAL_TOKENS))
    finished.decoder = decoders.WordPiece(prefix=_CONTINUATION)
    finished.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return finished


def _characters(texts: Iterable[str]) -> list[str]:
    """Returns the characters of the normalised texts, the most frequent first."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    return sorted((character for character in counts if not character.isspace()), key=lambda c: (-counts[c], c))


def _units(texts: Iterable[str], alphabet: list[str]) -> list[str]:
    """Returns the alphabet and the inner forms ("##a") of its characters that occur inside words, sorted."""
    untrained = _train(texts, vocabulary_size=0, special_tokens=[], alphabet=alphabet)
    return sorted(untrained.get_vocab())


def _train(texts: Iterable[str], *, vocabulary_size: int, special_tokens: list[str], alphabet: list[str]) -> Tokenizer:
    tokenizer = _bert(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=_CONTINUATION))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=special_tokens,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _bert(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
