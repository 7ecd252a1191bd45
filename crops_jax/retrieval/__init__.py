"""Retrieval of documents by exact top-k, ScaNN and BM25, and the metrics that measure it."""

from typing import TYPE_CHECKING

from crops_jax.lazy_exports import loaded_on_use

if TYPE_CHECKING:
    from crops_jax.retrieval.exact import exact_top_k

__all__ = ["exact_top_k"]

__getattr__ = loaded_on_use(__name__, {"exact": ("exact_top_k",)})
