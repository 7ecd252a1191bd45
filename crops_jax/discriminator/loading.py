"""Loads a relevance discriminator of any kind from its folder."""

from collections.abc import Callable
from pathlib import Path

from crops_jax.discriminator.interface import DESCRIPTION, Discriminator, describe
from crops_jax.discriminator.lexical import LexicalDiscriminator
from crops_jax.errors import InputError


def _load_cross_encoder(folder: Path | str) -> Discriminator:
    from crops_jax.discriminator.cross_encoder import CrossEncoderDiscriminator  # imports JAX

    return CrossEncoderDiscriminator.load(folder)


_KINDS: dict[str, Callable[[Path | str], Discriminator]] = {
    "lexical": LexicalDiscriminator.load,
    "cross_encoder": _load_cross_encoder,
}


def load(folder: Path | str) -> Discriminator:
    """Returns the discriminator of a folder, of any kind. Raises InputError if the folder has none."""
    kind = describe(Path(folder)).get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"{Path(folder) / DESCRIPTION}: kind {kind!r} is not one of {', '.join(sorted(_KINDS))}")
    return _KINDS[kind](folder)
