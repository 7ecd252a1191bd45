"""Texts to token ids with a Hugging Face tokenizer folder."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int32

from crops_jax import artifacts
from crops_jax.errors import InputError, one_line


class TokenizedTexts(NamedTuple):
    tokens: list[Int32[np.ndarray, "tokens"]]
    cut: int
    """How many texts were longer than the limit."""


class Tokenizer:
    """A tokenizer with the special tokens of its own post-processor, such as [CLS] text [SEP]."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        # Before any call to encode leaves its limit in the backend's description.
        self._description = json.dumps(json.loads(self._backend.to_str()), sort_keys=True)

    @property
    def vocabulary_size(self) -> int:
        """The rows that an embedding needs: one more than the greatest id."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the ids of a text; where the tokenizer came from does not matter."""
        return hashlib.sha256(self._description.encode()).hexdigest()

    def encode(self, texts: Sequence[str], *, max_tokens: int) -> list[Int32[np.ndarray, "tokens"]]:
        """Token ids of each text, special tokens included, without padding.

        A text that is too long loses its end, never its special tokens. A tokenizer without special tokens gives an
        empty list for an empty text.
        """
        return self.tokenize(texts, max_tokens=max_tokens).tokens

    def encode_bare(self, texts: Sequence[str], *, max_tokens: int) -> list[Int32[np.ndarray, "tokens"]]:
        """Token ids of each text without special tokens, at most `max_tokens` of them."""
        self._backend.enable_truncation(max_length=max_tokens)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def encode_pair(self, first: str, second: str) -> tokenizers.Encoding:
        """Two texts in one row, as the tokenizer's own post-processor sets them, not cut."""
        self._backend.no_truncation()
        return self._backend.encode(first, second)

    def tokenize(self, texts: Sequence[str], *, max_tokens: int) -> TokenizedTexts:
        """Like `encode`, with the number of texts that were cut.

        Raises InputError when `max_tokens` leaves no room beside the special tokens.
        """
        special = self._backend.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= special:
            raise InputError(f"{max_tokens} tokens a text leave no room beside {special} special ones; allow more")
        self._backend.enable_truncation(max_length=max_tokens)
        encodings = self._backend.encode_batch_fast(list(texts))
        tokens = [np.array(encoding.ids, np.int32) for encoding in encodings]
        return TokenizedTexts(tokens, sum(1 for encoding in encodings if encoding.overflowing))


def load(folder: Path | str) -> Tokenizer:
    """The tokenizer of a folder in Hugging Face's layout, read without network.

    Raises InputError when there is none.
    """
    return Tokenizer(_load_pretrained(folder).backend_tokenizer)


def fingerprint(folder: Path | str) -> str:
    """`Tokenizer.fingerprint` of a folder: equal for a folder and copies of it made by `copy`."""
    return load(folder).fingerprint


def copy(folder: Path | str, target: Path | str) -> Tokenizer:
    """Writes the tokenizer of a folder, and nothing else that lies there, to another folder, and returns it."""
    pretrained = _load_pretrained(folder)
    pretrained.save_pretrained(str(target))
    return load(target)


def save(backend: tokenizers.Tokenizer, target: Path | str) -> Tokenizer:
    """Writes a tokenizer with BERT's special tokens as a folder that transformers' AutoTokenizer loads."""
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    # This class name is known to transformers 4 and 5.
    settings = {f"{name}_token": token for name, token in names.items()} | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    backend.save(str(target / "tokenizer.json"))
    artifacts.write_text(target / "tokenizer_config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return load(target)


def _load_pretrained(folder: Path | str) -> Any:
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such tokenizer folder")
    # Without this transformers warns, at its import, that there is no PyTorch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
        # A folder says in its configuration which code to run; only transformers' own is accepted.
        pretrained = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        pretrained.backend_tokenizer.to_str()
    except Exception as error:  # transformers and tokenizers raise anything, plain Exception included
        raise InputError(
            f"{folder}: no tokenizer that can be read ({one_line(error)}); give a folder with tokenizer.json, "
            "as save_pretrained of a fast Hugging Face tokenizer writes it"
        ) from error
    return pretrained
