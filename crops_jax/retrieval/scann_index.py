"""Indexes that answer queries: ScaNN (Guo et al. 2020) if it is installed, exact search otherwise.

Small corpora are searched by brute force, medium ones by asymmetric hashing, and large ones by a tree of
sqrt(documents) leaves before the hashing; the best 200 documents are scored again in float32. The search effort is then
raised until recall@k against exact search, on sample queries, reaches `minimum_recall`. The embeddings of queries are
distributed differently from those of documents: settings tuned on documents as queries can miss a tenth of the
documents of real queries. Therefore pass sample queries of the kind that the index will serve, and measure its recall
on other queries.
"""

import json
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int32

from crops_jax.artifacts import write_text
from crops_jax.artifacts.arrays import write_array
from crops_jax.errors import InputError, NamedFailure, one_line
from crops_jax.retrieval.exact import local_mesh
from crops_jax.retrieval.mapped import mapped_top_k

# The minimum number of documents that are scored again, and the maximum number of sample queries.
_REORDER = 200
_SAMPLE = 256
_SETTINGS = "crops_jax.json"


class Index(Protocol):
    """An index that answers queries. `settings` is plain JSON; its "kind" is "exact" or begins with "scann"."""

    settings: dict[str, Any]

    def search(
        self, queries: Float[Any, "queries dim"], k: int
    ) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
        """Returns scores and indices of the k best documents of each query, best first."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes the files that `load_index` reads."""
        ...


def build_index(
    docs: Float[Any, "docs dim"],
    *,
    k: int = 100,
    sample_queries: Float[Any, "sample dim"] | None = None,
    minimum_recall: float = 0.98,
    seed: int = 0,
    brute_force_below: int = 20_000,
    no_tree_below: int = 100_000,
) -> Index:
    """Returns an index over documents that searches by inner product.

    Args:
      docs: the embeddings of the documents.
      k: the number of documents for each query for which the index is tuned.
      sample_queries: embeddings of queries like those that the index will serve, of which at most 256 are used; without
        any, documents are used. settings["sample"] says which.
      minimum_recall: the recall@k against exact search to which the search settings are raised.
      seed: the seed of the choice of the sample.
      brute_force_below: fewer documents are searched by brute force. By default this is the size that ScaNN recommends.
      no_tree_below: fewer documents are hashed without a tree of partitions, likewise.

    Returns:
      A ScannIndex, or an ExactIndex (settings["kind"] == "exact", with the reason) if ScaNN is not installed.
    """
    vectors = np.ascontiguousarray(docs, np.float32)
    k = min(k, vectors.shape[0])
    try:
        import scann
    except ImportError as error:
        return ExactIndex(vectors, reason=f"ScaNN is not installed here ({error}), so search is exact")
    has_queries = sample_queries is not None and len(sample_queries) > 0
    pool = np.ascontiguousarray(sample_queries, np.float32) if has_queries else vectors
    sample = pool[np.random.default_rng(seed).permutation(pool.shape[0])[:_SAMPLE]]
    searcher, settings = _build(scann, vectors, k=k, brute_force_below=brute_force_below, no_tree_below=no_tree_below)
    if settings["reorder"]:
        settings["sample"] = "queries" if has_queries else "documents"
        settings = _raise_recall(searcher, settings, vectors, sample, k=k, minimum_recall=minimum_recall)
    return ScannIndex(searcher, settings)


def load_index(folder: str | Path) -> Index:
    """Returns an index that `save` wrote.

    Raises InputError if the folder has no index, or one that needs ScaNN if ScaNN is not installed.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        kind = settings["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder}: not an index of crops_jax ({error}); build it again") from error
    if kind == "exact":
        return ExactIndex(np.load(folder / "docs.npy", allow_pickle=False), reason=settings["reason"])
    try:
        import scann
    except ImportError as error:
        raise InputError(
            f"{folder}: this is a ScaNN index, and ScaNN is not installed here ({error}); install scann "
            "(Linux only), or search exactly"
        ) from error
    return ScannIndex(scann.scann_ops_pybind.load_searcher(str(folder.resolve())), settings)


class ExactIndex:
    """Exact search, used instead of ScaNN."""

    def __init__(self, docs: Float32[np.ndarray, "docs dim"], *, reason: str):
        self.docs = docs
        self.settings = {"kind": "exact", "documents": docs.shape[0], "reason": reason}

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best documents of each query, best first; see mapped_top_k."""
        return mapped_top_k(np.asarray(queries), (self.docs,), k, mesh=local_mesh())

    def save(self, folder: str | Path) -> None:
        """Writes the documents and the settings."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_array(Path(folder) / "docs.npy", self.docs)
        write_text(Path(folder) / _SETTINGS, json.dumps(self.settings, indent=2) + "\n")


class ScannIndex:
    """A ScaNN searcher with its search settings."""

    def __init__(self, searcher: Any, settings: dict[str, Any]):
        self.searcher = searcher
        self.settings = settings

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best documents of each query by ScaNN, best first; index -1 and score -inf fill a short row."""
        queries = np.ascontiguousarray(queries, np.float32)
        scores = np.full((queries.shape[0], k), -np.inf, np.float32)
        indices = np.full((queries.shape[0], k), -1, np.int32)
        if queries.shape[0] == 0:
            return scores, indices
        neighbors, values = self.searcher.search_batched_parallel(
            queries,
            final_num_neighbors=k,
            pre_reorder_num_neighbors=max(self.settings["reorder"], 2 * k) if self.settings["reorder"] else None,
            leaves_to_search=self.settings["leaves_to_search"] or None,
        )
        width = min(k, neighbors.shape[1])
        # ScaNN fills missing documents with index 0 and score NaN.
        known = np.isfinite(values[:, :width])
        indices[:, :width] = np.where(known, neighbors[:, :width].astype(np.int64), -1)
        scores[:, :width] = np.where(known, values[:, :width], -np.inf)
        return scores, indices

    def save(self, folder: str | Path) -> None:
        """Writes the index. Its files name each other by relative paths, so the folder can be moved.

        Raises NamedFailure where ScaNN cannot write its files, as on a full disk.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            self.searcher.serialize(str(Path(folder).resolve()), relative_path=True)
        except RuntimeError as error:
            if "I/O error" not in str(error):
                raise
            raise NamedFailure(
                f"{folder}: ScaNN could not write the index ({one_line(error)}), most likely for lack of room on the "
                "disk; free some space and call the same command again"
            ) from error
        write_text(Path(folder) / _SETTINGS, json.dumps(self.settings, indent=2) + "\n")


def _build(
    scann: Any, docs: np.ndarray, *, k: int, brute_force_below: int, no_tree_below: int
) -> tuple[Any, dict[str, Any]]:
    count = docs.shape[0]
    builder = scann.scann_ops_pybind.builder(docs, k, "dot_product")
    leaves = round(math.sqrt(count)) if count >= no_tree_below else 0
    settings: dict[str, Any] = {
        "kind": "scann_brute_force",
        "documents": count,
        "leaves": leaves,
        "leaves_to_search": max(1, leaves // 10) if leaves else 0,
        "reorder": 0,
    }
    if count < brute_force_below:
        return builder.score_brute_force().build(), settings
    if leaves:
        builder = builder.tree(leaves, settings["leaves_to_search"], training_sample_size=min(count, 250_000))
    settings |= {"kind": "scann_tree" if leaves else "scann_hash", "reorder": max(_REORDER, 2 * k)}
    hashed = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(settings["reorder"])
    return hashed.build(), settings


def _raise_recall(
    searcher: Any, settings: dict[str, Any], docs: np.ndarray, sample: np.ndarray, *, k: int, minimum_recall: float
) -> dict[str, Any]:
    """Returns settings with leaves and reordered documents doubled until the recall of the sample is high enough."""
    exact = mapped_top_k(sample, (docs,), k, mesh=local_mesh())
    while True:
        recall = index_recall(exact, ScannIndex(searcher, settings).search(sample, k)).mean()
        settings = {**settings, "recall_on_sample": round(float(recall), 4)}
        everything = settings["leaves_to_search"] >= settings["leaves"] and settings["reorder"] >= docs.shape[0]
        if recall >= minimum_recall or everything:
            return settings
        settings = {
            **settings,
            "leaves_to_search": min(2 * settings["leaves_to_search"], settings["leaves"]),
            "reorder": min(2 * settings["reorder"], docs.shape[0]),
        }


def index_recall(
    exact: tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]],
    results: tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]],
) -> Float[np.ndarray, "queries"]:
    """Returns recall@k of an index against exact search: the share of its documents that belong to an exact top k.

    Any document whose score equals that of rank k belongs to it, as in ANN-Benchmarks (Aumueller et al. 2018). Scores
    are equal within 1e-6, because an index rounds differently from `exact_top_k`, and has no order of equal scores.

    Args:
      exact: (scores, indices) of exact_top_k.
      results: (scores, indices) of Index.search for the same queries and k.

    Raises ValueError if the shapes differ.
    """
    if exact[1].shape != results[1].shape:
        raise ValueError(f"exact and results must have one shape, found {exact[1].shape} and {results[1].shape}")
    kth_scores = exact[0][:, -1:]
    tied = results[0] >= kth_scores - 1e-6 * np.maximum(1.0, np.abs(kth_scores))
    same = np.zeros(tied.shape, bool)
    for row, (indices, exact_indices) in enumerate(zip(results[1], exact[1], strict=True)):
        same[row] = np.isin(indices, exact_indices)
    return ((tied | same) & (results[1] >= 0)).mean(axis=1)
