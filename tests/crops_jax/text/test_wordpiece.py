import subprocess
import sys

import pytest

from crops_jax.errors import InputError
from crops_jax.text.wordpiece import SPECIAL_TOKENS, learn_wordpiece
from tests.paths import ROOT

WORDS = ["garden", "gardening", "hose", "house", "houses", "red", "redder", "lamp", "lamps", "Café", "straße"]
TEXTS = [f"{one} {other}, {one}s" for one in WORDS for other in WORDS]


def learn(texts=TEXTS, size=60):
    return learn_wordpiece(lambda: texts, vocabulary_size=size)


def test_special_tokens_come_first_and_the_size_is_kept():
    vocabulary = learn().get_vocab()
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert sorted(vocabulary.values()) == list(range(60))


def test_texts_are_lower_cased_and_enclosed():
    tokens = learn(size=200).encode("RED  Café lamp").tokens
    assert tokens == ["[CLS]", "red", "cafe", "lamp", "[SEP]"]


def test_the_order_of_the_texts_does_not_matter():
    assert learn(TEXTS[::-1]).to_str() == learn().to_str()


def test_other_processes_learn_the_same():
    script = "from tests.crops_jax.text.test_wordpiece import learn; print(learn().to_str())"
    done = [
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert done[0].stdout == done[1].stdout == learn().to_str() + "\n"


def test_many_characters_leave_room_for_words():
    texts = [chr(0x4E00 + i) * 2 + " 手机 handy" for i in range(300)]
    vocabulary = learn(texts, size=100).get_vocab()
    assert len(vocabulary) <= 100
    assert {"手", "机", "handy"} <= set(vocabulary)


def test_too_small_vocabularies_and_no_text_are_refused():
    with pytest.raises(InputError, match="at least 20 tokens"):
        learn(size=19)
    with pytest.raises(InputError, match="no text"):
        learn([" ", ""])
