"""Turns texts into token ids with the tokenizer of a Hugging Face folder.

transformers reads such folders, and its import takes more than half a second. A folder that `copy` or `save` wrote is
therefore read without it, if both ways gave the same tokenizer when it was written and no file has changed since.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int32

from crops_jax import artifacts
from crops_jax.errors import InputError, one_line

_TOKENIZER, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_CHAT_TEMPLATE = "chat_template.jinja"
_MODEL = "config.json"
"""The configuration of a model. Where a folder has one, transformers can choose the class of tokenizers by it."""
_CHECKED = "crops_jax_checked"
"""The field of tokenizer_config.json with the SHA-256 of the files that need no transformers."""
_OTHER_FILES = (
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab*",
    "merges*",
    "tekken.json",
    "*.model",
    "*.tiktoken",
)
"""Further files from which transformers can take a part of a tokenizer. A checked folder has none of them."""


class TokenizedTexts(NamedTuple):
    """The token ids of some texts, and the number of texts that were longer than the limit."""

    tokens: list[Int32[np.ndarray, "tokens"]]
    cut: int


class Tokenizer:
    """A tokenizer. It adds the special tokens of its own post-processor, such as in [CLS] text [SEP]."""

    def __init__(self, backend: tokenizers.Tokenizer, *, truncation_side: Literal["right", "left"] = "right"):
        """Copies a tokenizer.

        Args:
          backend: the tokenizer.
          truncation_side: the side on which a text that is too long is cut: "right" for its end, "left" for its
            beginning, as truncation_side of tokenizer_config.json says.
        """
        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())
        self._truncation_side = truncation_side
        self._backend.no_padding()
        self._backend.no_truncation()
        # The description is taken now because each call to encode leaves its limit in it.
        self._description = json.dumps(json.loads(self._backend.to_str()), sort_keys=True)
        if truncation_side != "right":
            self._description += f" truncation_side {truncation_side}"

    @property
    def vocabulary_size(self) -> int:
        """The number of rows that an embedding needs: the greatest id plus one."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all settings that decide the ids of a text, wherever the tokenizer comes from."""
        return hashlib.sha256(self._description.encode()).hexdigest()

    def encode(self, texts: Sequence[str], *, max_tokens: int) -> list[Int32[np.ndarray, "tokens"]]:
        """Returns the token ids of each text, with special tokens and without padding.

        A text that is too long loses its end (with truncation_side "left" its beginning), but never its special tokens.
        Without special tokens, an empty text has no token ids.

        Raises InputError when `max_tokens` leaves no room beside the special tokens.
        """
        return self.tokenize(texts, max_tokens=max_tokens).tokens

    def encode_bare(self, texts: Sequence[str], *, max_tokens: int) -> list[Int32[np.ndarray, "tokens"]]:
        """Returns the first token ids of each text, at most `max_tokens`, without special tokens."""
        self._backend.enable_truncation(max_length=max_tokens)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def encode_pair(self, first: str, second: str) -> tokenizers.Encoding:
        """Returns two texts in one row, uncut, with the special tokens of the tokenizer's own post-processor."""
        self._backend.no_truncation()
        return self._backend.encode(first, second)

    def tokenize(self, texts: Sequence[str], *, max_tokens: int) -> TokenizedTexts:
        """Does what `encode` does, and counts the texts that were cut.

        Raises InputError when `max_tokens` leaves no room beside the special tokens.
        """
        special = self._backend.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= special:
            raise InputError(f"{max_tokens} tokens a text leave no room beside {special} special ones; allow more")
        self._backend.enable_truncation(max_length=max_tokens, direction=self._truncation_side)
        encodings = self._backend.encode_batch_fast(list(texts))
        tokens = [np.array(encoding.ids, np.int32) for encoding in encodings]
        return TokenizedTexts(tokens, sum(1 for encoding in encodings if encoding.overflowing))


def load(folder: Path | str) -> Tokenizer:
    """Reads the tokenizer of a folder in Hugging Face's layout, without using the network.

    Raises InputError when the folder has no tokenizer that can be read.
    """
    if settings := _checked_settings(Path(folder)):
        return _read_directly(Path(folder), settings)
    return _of_pretrained(_load_pretrained(folder))


def fingerprint(folder: Path | str) -> str:
    """Returns the `Tokenizer.fingerprint` of a folder. It is equal for a folder and for copies of it made by `copy`."""
    return load(folder).fingerprint


def copy(folder: Path | str, target: Path | str) -> Tokenizer:
    """Writes the tokenizer of a folder, but no other files, to another folder, and returns the copy."""
    folder, target = Path(folder), Path(target)
    if _checked_settings(folder):
        target.mkdir(parents=True, exist_ok=True)
        for name in (_TOKENIZER, _SETTINGS, _CHAT_TEMPLATE):
            if (folder / name).exists():
                shutil.copyfile(folder / name, target / name)
    else:
        _load_pretrained(folder).save_pretrained(str(target))
    # The target may have a config.json, and with it another class of tokenizers.
    return _load_and_check(target)


def save(backend: tokenizers.Tokenizer, target: Path | str) -> Tokenizer:
    """Writes a tokenizer with BERT's special tokens as a folder that transformers' AutoTokenizer loads; returns it."""
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    # Both transformers 4 and transformers 5 know this class name.
    settings = {f"{name}_token": token for name, token in names.items()} | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    backend.save(str(target / _TOKENIZER))
    _write_settings(target, settings)
    return _load_and_check(target)


def _checked_settings(folder: Path) -> dict[str, Any] | None:
    """Returns the settings of a folder that was marked and whose files are still those of the mark; None for others."""
    settings = _settings(folder)
    checked = settings.get(_CHECKED)
    return settings if checked is not None and checked == _checksum(folder, settings) else None


def _load_and_check(folder: Path) -> Tokenizer:
    """Reads a new folder, by transformers unless its mark is right, and marks it if it needs them no more."""
    if settings := _checked_settings(folder):
        return _read_directly(folder, settings)
    loaded, settings = _of_pretrained(_load_pretrained(folder)), _settings(folder)
    settings.pop(_CHECKED, None)  # of a folder that was copied
    if (checksum := _checksum(folder, settings)) and _read_directly(folder, settings).fingerprint == loaded.fingerprint:
        settings[_CHECKED] = checksum
    _write_settings(folder, settings)
    return loaded


def _read_directly(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    backend = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER))
    return Tokenizer(backend, truncation_side=settings.get("truncation_side", "right"))


def _settings(folder: Path) -> dict[str, Any]:
    """Returns tokenizer_config.json; nothing where transformers has to say what is wrong with it."""
    try:
        found = json.loads((folder / _SETTINGS).read_bytes())
        json.dumps(found)  # as it is written again, and its checksum computed
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    artifacts.write_text(folder / _SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _checksum(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Returns the SHA-256 of the files that decide the tokenizer of a folder, or None if it needs transformers."""
    others = [file for pattern in _OTHER_FILES for file in folder.glob(pattern)]
    if others or not (folder / _TOKENIZER).exists():
        return None
    decided = {name: value for name, value in settings.items() if name != _CHECKED}
    digest = hashlib.sha256((folder / _TOKENIZER).read_bytes())
    digest.update(json.dumps(decided, sort_keys=True).encode())
    if (folder / _MODEL).exists():
        digest.update((folder / _MODEL).read_bytes())
    return digest.hexdigest()


def _of_pretrained(pretrained: Any) -> Tokenizer:
    return Tokenizer(pretrained.backend_tokenizer, truncation_side=pretrained.truncation_side)


def _load_pretrained(folder: Path | str) -> Any:
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such tokenizer folder")
    # Without this setting, transformers warns at import that PyTorch is missing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
        # The configuration of a folder can name code to run; only transformers' own code is accepted.
        pretrained = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        pretrained.backend_tokenizer.to_str()
    except Exception as error:  # transformers and tokenizers raise many types, plain Exception included
        raise InputError(
            f"{folder}: no tokenizer that can be read ({one_line(error)}); give a folder with tokenizer.json, "
            "as save_pretrained of a fast Hugging Face tokenizer writes it"
        ) from error
    return pretrained
