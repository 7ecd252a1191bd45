"""Finding documents: exact top-k, ScaNN, BM25; and measuring what was found."""

from crops_jax.retrieval.exact import exact_top_k

__all__ = ["exact_top_k"]
