"""Texts as the encoder gets them: normal forms, tokens, and rows of packed tokens."""

from crops_jax.text.forms import DOCUMENT_FIELDS, document_text, normalise_query, words

__all__ = [
    "DOCUMENT_FIELDS",
    "document_text",
    "normalise_query",
    "words",
]
