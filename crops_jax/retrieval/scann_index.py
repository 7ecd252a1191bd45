"""An index to serve from: ScaNN (Guo et al. 2020) where it is installed, exact search where it is not.

Small corpora are searched by brute force, middle ones by asymmetric hashing, large ones by a tree of sqrt(documents)
leaves before that; the best 200 are scored again in float32. How much is searched is then raised until recall@k
against exact search, on sample queries, reaches `least_recall`. Queries lie elsewhere than documents: settings that
serve documents as queries can miss a tenth of what real ones should find, so give queries of the kind to be served,
and measure the gap on others than those.
"""

import json
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int32

from crops_jax.artifacts import write_text
from crops_jax.errors import InputError
from crops_jax.retrieval.exact import local_mesh
from crops_jax.retrieval.mapped import mapped_top_k

# ScaNN's own advice: below these sizes hashing, and partitioning, cost more than they save.
_REORDER = 200
_SAMPLE = 256
_SETTINGS = "crops_jax.json"


class Index(Protocol):
    """What answers queries. `settings` says what it is, in plain JSON; its "kind" is "exact" or begins with "scann"."""

    settings: dict[str, Any]

    def search(
        self, queries: Float[Any, "queries dim"], k: int
    ) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]: ...

    def save(self, folder: str | Path) -> None: ...


def build_index(
    docs: Float[Any, "docs dim"],
    *,
    k: int = 100,
    sample_queries: Float[Any, "sample dim"] | None = None,
    least_recall: float = 0.98,
    seed: int = 0,
    brute_force_below: int = 20_000,
    no_tree_below: int = 100_000,
) -> Index:
    """An index over docs [docs, dim], searched by inner product.

    Args:
      docs: embeddings.
      k: documents a query that it is meant for.
      sample_queries: embeddings of queries like those to be served, at most 256 of which are used; without them, or
        with none, documents are taken. settings["sample"] says which.
      least_recall: recall@k against exact search that the search settings are raised to.
      seed: of the choice of the sample.
      brute_force_below: fewer documents than these are searched one by one.
      no_tree_below: fewer documents than these are hashed without a tree of partitions.

    Returns:
      A ScannIndex; an ExactIndex (settings["kind"] == "exact", with the reason) where ScaNN is not installed.
    """
    vectors = np.ascontiguousarray(docs, np.float32)
    k = min(k, vectors.shape[0])
    try:
        import scann
    except ImportError as error:
        return ExactIndex(vectors, reason=f"ScaNN is not installed here ({error}), so search is exact")
    own = sample_queries is not None and len(sample_queries) > 0
    pool = np.ascontiguousarray(sample_queries, np.float32) if own else vectors
    sample = pool[np.random.default_rng(seed).permutation(pool.shape[0])[:_SAMPLE]]
    searcher, settings = _build(scann, vectors, k=k, brute_force_below=brute_force_below, no_tree_below=no_tree_below)
    if settings["reorder"]:
        settings["sample"] = "queries" if own else "documents"
        settings = _raised_until(searcher, settings, vectors, sample, k=k, least_recall=least_recall)
    return ScannIndex(searcher, settings)


def load_index(folder: str | Path) -> Index:
    """An index written by `save`. Raises InputError where there is none, or where it needs ScaNN and that is absent."""
    folder = Path(folder)
    try:
        settings = json.loads((folder / _SETTINGS).read_text())
        kind = settings["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder}: not an index of crops_jax ({error}); build it again") from error
    if kind == "exact":
        return ExactIndex(np.load(folder / "docs.npy", allow_pickle=False), reason=settings["reason"])
    try:
        import scann
    except ImportError as error:
        raise InputError(
            f"{folder}: a ScaNN index, and ScaNN is not installed here ({error}); install scann "
            "(Linux only), or search exactly"
        ) from error
    return ScannIndex(scann.scann_ops_pybind.load_searcher(str(folder.resolve())), settings)


class ExactIndex:
    """Exact search in the place of ScaNN."""

    def __init__(self, docs: Float32[np.ndarray, "docs dim"], *, reason: str):
        self.docs = docs
        self.settings = {"kind": "exact", "documents": docs.shape[0], "reason": reason}

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        return mapped_top_k(np.asarray(queries), (self.docs,), k, mesh=local_mesh())

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        np.save(Path(folder) / "docs.npy", self.docs, allow_pickle=False)
        write_text(Path(folder) / _SETTINGS, json.dumps(self.settings, indent=2) + "\n")


class ScannIndex:
    """A ScaNN searcher with the settings that it is searched with."""

    def __init__(self, searcher: Any, settings: dict[str, Any]):
        self.searcher = searcher
        self.settings = settings

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k documents that ScaNN finds for each query, best first; index -1 and score -inf fill a short row."""
        queries = np.ascontiguousarray(queries, np.float32)
        scores = np.full((queries.shape[0], k), -np.inf, np.float32)
        indices = np.full((queries.shape[0], k), -1, np.int32)
        if queries.shape[0] == 0:
            return scores, indices
        found, values = self.searcher.search_batched_parallel(
            queries,
            final_num_neighbors=k,
            pre_reorder_num_neighbors=max(self.settings["reorder"], 2 * k) if self.settings["reorder"] else None,
            leaves_to_search=self.settings["leaves_to_search"] or None,
        )
        width = min(k, found.shape[1])
        # ScaNN fills what it did not find with index 0 and NaN.
        known = np.isfinite(values[:, :width])
        indices[:, :width] = np.where(known, found[:, :width].astype(np.int64), -1)
        scores[:, :width] = np.where(known, values[:, :width], -np.inf)
        return scores, indices

    def save(self, folder: str | Path) -> None:
        """Writes the index; its files name each other by relative paths, so the folder can be moved."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.searcher.serialize(str(Path(folder).resolve()), relative_path=True)
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


def _raised_until(
    searcher: Any, settings: dict[str, Any], docs: np.ndarray, sample: np.ndarray, *, k: int, least_recall: float
) -> dict[str, Any]:
    """Doubles leaves and reordered documents until the sample queries find what exact search finds."""
    exact = mapped_top_k(sample, (docs,), k, mesh=local_mesh())
    while True:
        recall = index_recall(exact, ScannIndex(searcher, settings).search(sample, k)).mean()
        settings = {**settings, "recall_on_sample": round(float(recall), 4)}
        everything = settings["leaves_to_search"] >= settings["leaves"] and settings["reorder"] >= docs.shape[0]
        if recall >= least_recall or everything:
            return settings
        settings = {
            **settings,
            "leaves_to_search": min(2 * settings["leaves_to_search"], settings["leaves"]),
            "reorder": min(2 * settings["reorder"], docs.shape[0]),
        }


def index_recall(
    exact: tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]],
    found: tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]],
) -> Float[np.ndarray, "queries"]:
    """Recall@k of an index against exact search: the share of what it found that belongs to an exact top k.

    Of documents with equal scores around rank k any may be taken, as in ANN-Benchmarks (Aumueller et al. 2018), where
    equal means to 1e-6: an index rounds otherwise than `exact_top_k`, and knows no order among equals.

    Args:
      exact: (scores, indices) of exact_top_k.
      found: (scores, indices) of Index.search for the same queries and k.
    """
    if exact[1].shape != found[1].shape:
        raise ValueError(f"exact and found must have one shape, found {exact[1].shape} and {found[1].shape}")
    least = exact[0][:, -1:]
    tied = found[0] >= least - 1e-6 * np.maximum(1.0, np.abs(least))
    same = np.zeros(tied.shape, bool)
    for row, (one, other) in enumerate(zip(found[1], exact[1], strict=True)):
        same[row] = np.isin(one, other)
    return ((tied | same) & (found[1] >= 0)).mean(axis=1)
