import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from crops_jax.errors import InputError
from crops_jax.text import tokenizer
from crops_jax.text.wordpiece import learn_wordpiece

load_pretrained = tokenizer._load_pretrained
TEXTS = ["red shoe for the garden", "blue lamp", "red lamp for the house"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(learn_wordpiece(lambda: TEXTS, vocabulary_size=80), path)
    return path


def test_texts_become_int32_with_special_tokens(folder):
    loaded = tokenizer.load(folder)
    red, empty = loaded.encode(["red", ""], max_tokens=8)
    assert red.dtype == np.int32
    assert [red[0], red[-1], *empty] == [2, 3, 2, 3]
    assert len(red) == 3


def test_long_texts_lose_their_end_but_no_special_token(folder):
    loaded = tokenizer.load(folder)
    texts = ["red lamp for the garden", "red"]
    cut = loaded.tokenize(texts, max_tokens=4)
    assert [len(one) for one in cut.tokens] == [4, 3]
    assert cut.tokens[0][-1] == 3
    assert cut.cut == 1
    np.testing.assert_array_equal(cut.tokens[0][:3], loaded.encode(texts, max_tokens=40)[0][:3])
    with pytest.raises(InputError, match="leave no room beside 2 special ones"):
        loaded.encode(texts, max_tokens=2)


def test_a_tokenizer_that_cuts_on_the_left_keeps_the_end_of_a_text(folder, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.copy(folder, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    text = "red lamp for the garden"
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    expected = theirs(text, truncation=True, max_length=4)["input_ids"]
    loaded = tokenizer.load(tmp_path)
    cut = loaded.tokenize([text, "red"], max_tokens=4)
    assert cut.tokens[0].tolist() == expected
    assert cut.tokens[0].tolist() != tokenizer.load(folder).encode([text], max_tokens=4)[0].tolist()
    assert (cut.tokens[0][0], cut.tokens[0][-1], cut.cut) == (2, 3, 1)
    assert loaded.fingerprint != tokenizer.fingerprint(folder)
    assert tokenizer.copy(tmp_path, tmp_path / "copy").fingerprint == loaded.fingerprint


def test_transformers_reads_what_is_saved(folder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = tokenizer.load(folder).encode(["Red lamp!"], max_tokens=20)[0]
    assert theirs("Red lamp!")["input_ids"] == ours.tolist()
    assert (theirs.pad_token, theirs.cls_token, theirs.mask_token) == ("[PAD]", "[CLS]", "[MASK]")


def test_a_copy_has_the_same_fingerprint_and_only_the_tokenizer(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(b"weights")
    copied = tokenizer.copy(folder, tmp_path / "copy")
    (folder / "model.safetensors").unlink()
    assert copied.fingerprint == tokenizer.fingerprint(folder) == tokenizer.fingerprint(tmp_path / "copy")
    assert {file.name for file in (tmp_path / "copy").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    tokenizer.save(learn_wordpiece(lambda: TEXTS[:1] * 3, vocabulary_size=80), tmp_path / "other")
    assert tokenizer.fingerprint(tmp_path / "other") != copied.fingerprint


def test_padding_and_truncation_of_the_folder_do_not_matter(folder, tmp_path):
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_padding(length=12)
    backend.enable_truncation(max_length=3)
    loaded = tokenizer.save(backend, tmp_path / "padded")
    assert loaded.fingerprint == tokenizer.fingerprint(folder)
    assert len(loaded.encode(["red lamp"], max_tokens=9)[0]) == 4


def test_vocabulary_size_counts_ids_not_tokens(tmp_path):
    backend = Backend(models.WordLevel({"a": 0, "b": 9, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    assert tokenizer.Tokenizer(backend).vocabulary_size == 10


@pytest.mark.parametrize("content", [None, "", '{"model": 1}'])
def test_folders_without_a_tokenizer_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="no tokenizer that can be read"):
        tokenizer.load(tmp_path)
    with pytest.raises(InputError, match="no such tokenizer folder"):
        tokenizer.load(tmp_path / "nowhere")


def add_field(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "clean_up_tokenization_spaces": True}))


def change_tokens(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, "normalizer": None}))


def remove_mark(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "crops_jax_checked": None}))


def add_special_tokens(folder):
    (folder / "special_tokens_map.json").write_text("{}")


def add_model(folder):
    (folder / "config.json").write_text('{"model_type": "qwen2"}')


def test_what_copy_and_save_wrote_is_read_without_transformers(folder, tmp_path):
    tokenizer.copy(folder, tmp_path / "copy")
    program = (
        "import sys; from crops_jax.text import tokenizer; "
        "print([tokenizer.fingerprint(one) for one in sys.argv[1:]], 'transformers' in sys.modules)"
    )
    words = [sys.executable, "-c", program, str(folder), str(tmp_path / "copy")]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert printed == f"{[tokenizer.fingerprint(folder)] * 2} False\n"


@pytest.mark.parametrize("change", [add_field, change_tokens, remove_mark, add_special_tokens, add_model])
def test_a_changed_folder_is_read_by_transformers(folder, tmp_path, monkeypatch, change):
    tokenizer.copy(folder, tmp_path)
    read = []
    monkeypatch.setattr(tokenizer, "_load_pretrained", lambda path: read.append(path) or load_pretrained(path))
    tokenizer.load(tmp_path)
    assert not read
    change(tmp_path)
    tokenizer.load(tmp_path)
    assert read == [tmp_path]
    # A copy of it is checked anew.
    tokenizer.copy(tmp_path, tmp_path / "copy")
    assert tokenizer.fingerprint(tmp_path / "copy") == tokenizer.fingerprint(tmp_path)


def test_a_copy_beside_the_configuration_of_a_model_is_what_transformers_reads(folder, tmp_path):
    """transformers reads a folder with the config.json of Qwen2 by Qwen2's class, whatever tokenizer.json says."""
    add_model(tmp_path)
    copied = tokenizer.copy(folder, tmp_path)
    assert copied.fingerprint == tokenizer.fingerprint(tmp_path) != tokenizer.fingerprint(folder)


def test_settings_nested_too_deeply_are_refused(folder, tmp_path):
    tokenizer.copy(folder, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="no tokenizer that can be read"):
        tokenizer.load(tmp_path)


def test_a_folder_that_transformers_reads_otherwise_is_left_to_them(folder, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    tokenizer.copy(folder, source)
    remove_mark(source)
    other = Backend(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    monkeypatch.setattr(tokenizer, "_read_directly", lambda *given: tokenizer.Tokenizer(other))
    assert tokenizer.copy(source, target).fingerprint == tokenizer.load(target).fingerprint
    assert "crops_jax_checked" not in json.loads((target / "tokenizer_config.json").read_text())
