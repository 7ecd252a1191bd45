"""The forms in which an encoder reads texts: normalised text, tokens, and rows of packed tokens."""

from crops_jax.text.forms import DOCUMENT_FIELDS, QUERY_FORM, document_text, normalise_query, words

__all__ = [
    "DOCUMENT_FIELDS",
    "QUERY_FORM",
    "document_text",
    "normalise_query",
    "words",
]
