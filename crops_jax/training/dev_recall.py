"""Recall@10 on the dev split. It decides which checkpoint is the best one."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from crops_jax.config import Config
from crops_jax.devices import processes, sharding
from crops_jax.embeddings.mesh_encoder import MeshEncoder
from crops_jax.input_pipeline.batch_reader import cut
from crops_jax.labels import Level
from crops_jax.records import QueryRecord, RecordSource
from crops_jax.retrieval.exact import exact_top_k
from crops_jax.retrieval.poly_encoder import poly_top_k
from crops_jax.text.packing import PADDING_TOKEN
from crops_jax.training.optimizer import TEMPERATURE

CUTOFF = 10
_PROGRESS = "embedding dev texts, {}"
_QUERIES_OF_A_GROUP = 64


class DevRecall:
    """Recall@10 of at most training.dev_queries dev queries by the score of the model.

    The documents are all whose text the records of these queries hold, and the first training.dev_documents others of
    the training records. A positive is a labelled document of level 4 or 5 whose text is among them; queries without a
    positive do not count. The value is a function of the parameters alone: the documents and their order are fixed, and
    of documents with equal scores the one with the lower id comes first.
    """

    def __init__(
        self,
        source: RecordSource,
        model: nnx.Module,
        config: Config,
        *,
        mesh: Mesh,
        training_source: RecordSource | None = None,
    ):
        """
        Args:
          source: the records of the dev split.
          model: the model, of which only the structure is used.
          config: the configuration, for the token limits and the width.
          mesh: the devices that encode.
          training_source: the records of the training split, from which training.dev_documents are read.
        """
        self._mesh = mesh
        self._has_codes = config.encoder.query_codes > 0
        texts: dict[tuple[int, int], np.ndarray] = {}
        queries = source.read(_at_equal_distances(len(source), config.training.dev_queries))
        for record in queries:
            _add_documents(record, texts)
        wanted = len(texts) + config.training.dev_documents
        for record in training_source or ():
            if len(texts) >= wanted:
                break
            _add_documents(record, texts, at_most=wanted)
        column = {words: index for index, words in enumerate(sorted(texts))}
        positives = [_positives(record, column) for record in queries]
        kept = [index for index, columns in enumerate(positives) if columns]
        self._positives = [positives[index] for index in kept]
        closing, limits = source.closing_token, config.encoder
        self._queries = [cut(queries[i].query_tokens, limits.max_query_tokens, closing_token=closing) for i in kept]
        self._documents = [
            cut(texts[words], limits.max_document_tokens, closing_token=closing) for words in sorted(texts)
        ]
        self._longest_query = limits.max_query_tokens
        graph, _, others = nnx.split(model, nnx.Param, ...)

        def encode_contexts(parameters: dict, tokens: jax.Array) -> jax.Array:
            with sharding.traced_over(mesh):
                merged: Any = nnx.merge(graph, nnx.State(jax.tree.map(nnx.Param, parameters)), others, copy=True)
                return merged.encode_contexts(tokens)

        self._encode = MeshEncoder(model, config, mesh=mesh)
        self._encode_contexts: Callable = jax.jit(encode_contexts, out_shardings=sharding.replicated(mesh))

    def __len__(self) -> int:
        """Returns the number of queries with a positive."""
        return len(self._positives)

    def __call__(self, parameters: dict) -> float:
        """Returns the mean over queries of (positives among the first 10) / (positives)."""
        documents = self._encode(parameters, self._documents, "document", description=_PROGRESS.format("document"))
        # Every process has all vectors and ranks its share of the queries.
        cluster = processes.current()
        own = slice(cluster.index, None, cluster.count)
        rank = self._ranked_by_codes if self._has_codes else self._ranked
        hits = [
            len(positives.intersection(row.tolist()))
            for positives, row in zip(self._positives[own], rank(parameters, documents, own), strict=True)
        ]
        recalls = np.zeros(len(self))
        for process, counts in enumerate(cluster.gathered(hits)):
            sizes = [len(positives) for positives in self._positives[process :: cluster.count]]
            recalls[process :: cluster.count] = [count / size for count, size in zip(counts, sizes, strict=True)]
        return float(np.mean(recalls))

    def _ranked(self, parameters: dict, documents: np.ndarray, own: slice) -> np.ndarray:
        """Returns the first documents of the own queries by dot products, [queries, at most 10]."""
        queries = self._encode(parameters, self._queries, "query", description=_PROGRESS.format("query"))[own]
        k = min(CUTOFF, len(documents))
        return exact_top_k(queries, documents, k)[1] if len(queries) else np.zeros((0, k), np.int32)

    def _ranked_by_codes(self, parameters: dict, documents: np.ndarray, own: slice) -> np.ndarray:
        """Returns the first documents of the own queries by the score of the Poly-encoder, [queries, at most 10]."""
        temperature, k = float(np.exp(-np.asarray(parameters[TEMPERATURE]))), min(CUTOFF, len(documents))
        ranked = [np.zeros((0, k), np.int32)]
        groups = sharding.num_groups(self._mesh)
        size = groups * min(_QUERIES_OF_A_GROUP, -(-len(self._queries) // groups))
        for start in range(0, len(self._queries), size):
            part = self._queries[start : start + size]
            tokens = np.full((size, self._longest_query), PADDING_TOKEN, np.int32)
            for row, text in zip(tokens, part):
                row[: len(text)] = text
            encoded = self._encode_contexts(parameters, sharding.spread(tokens, sharding.batch_sharding(self._mesh)))
            contexts = np.asarray(encoded)[: len(part)][np.arange(start, start + len(part)) % own.step == own.start]
            if len(contexts):
                ranked.append(poly_top_k(contexts, documents, k, temperature=temperature)[1])
        return np.concatenate(ranked)


def _at_equal_distances(count: int, at_most: int) -> list[int]:
    """Returns the numbers of at most so many of `count` things, at equal distances; all of them if `at_most` is 0."""
    chosen = min(count, at_most or count)
    return [number * count // chosen for number in range(chosen)]


def _add_documents(record: QueryRecord, texts: dict[tuple[int, int], np.ndarray], *, at_most: float = math.inf) -> None:
    """Adds the documents of a record to `texts`, id -> tokens, until there are `at_most`."""
    for words, tokens in zip(record.document_ids, record.document_tokens, strict=True):
        if len(texts) < at_most:
            texts.setdefault((int(words[0]), int(words[1])), tokens)


def _positives(record: QueryRecord, column: dict[tuple[int, int], int]) -> set[int]:
    """Returns the columns of the documents that are positives of a query and whose text the records hold."""
    return {
        column[words]
        for words, level in zip(map(tuple, record.labelled_ids.tolist()), record.labelled_levels, strict=True)
        if level >= Level.POSITIVE and words in column
    }
