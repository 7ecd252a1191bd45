"""Retrieval of documents by exact top-k, ScaNN and BM25, and the metrics that measure it."""

from crops_jax.retrieval.exact import exact_top_k

__all__ = ["exact_top_k"]
