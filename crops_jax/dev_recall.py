"""Recall@10 on the dev split, by which the best checkpoint is chosen."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Int32
from tqdm import tqdm

from crops_jax import sharding
from crops_jax.config import Config
from crops_jax.input_pipeline import PADDING_TOKEN, put_tokens
from crops_jax.labels import Level
from crops_jax.query_record import QueryRecord
from crops_jax.records import RecordSource
from crops_jax.retrieval.exact import exact_top_k

CUTOFF = 10


class DevRecall:
    """Recall@10 of the dev queries' positives among all documents whose text the dev records hold.

    A positive is a labelled document of level 4 or 5 whose text is there; queries without one do not count. The value
    is a function of the parameters alone: same documents, same order, ties to the document whose id is lower.
    """

    def __init__(self, source: RecordSource, model: nnx.Module, config: Config, *, mesh: Mesh):
        """
        Args:
          source: the dev split.
          model: gives the structure, not the parameters.
          config: token limits and batch size.
          mesh: devices that encode.
        """
        self._mesh = mesh
        self._rows = config.data.queries_per_batch
        texts: dict[tuple[int, int], np.ndarray] = {}
        queries = []
        for record in source:
            queries.append(record)
            for words, tokens in zip(record.document_ids, record.document_tokens, strict=True):
                texts.setdefault((int(words[0]), int(words[1])), tokens)
        column = {words: place for place, words in enumerate(sorted(texts))}
        positives = [_positives(record, column) for record in queries]
        kept = [place for place, found in enumerate(positives) if found]
        self._positives = [positives[place] for place in kept]
        closing = source.closing_token
        self._queries = padded(
            [queries[i].query_tokens for i in kept], config.encoder.max_query_tokens, closing_token=closing
        )
        self._documents = padded(
            [texts[words] for words in sorted(texts)], config.encoder.max_document_tokens, closing_token=closing
        )
        graph, _, others = nnx.split(model, nnx.Param, ...)

        def encode(parameters: dict, tokens: jax.Array, tower: str) -> jax.Array:
            state = nnx.State(jax.tree.map(nnx.Param, parameters))
            encoder: Any = nnx.merge(graph, state, others, copy=True)
            return encoder.encode_queries(tokens) if tower == "query" else encoder.encode_documents(tokens)

        self._encode: Callable = jax.jit(encode, static_argnames="tower", out_shardings=sharding.replicated(mesh))

    def __len__(self) -> int:
        """Queries that count."""
        return len(self._positives)

    def __call__(self, parameters: dict) -> float:
        """Mean over queries of (positives among the first 10) / (positives)."""
        queries = self._embed(parameters, self._queries, "query")
        documents = self._embed(parameters, self._documents, "document")
        _, found = exact_top_k(queries, documents, min(CUTOFF, len(documents)))
        hits = [
            len(positives.intersection(row.tolist())) / len(positives)
            for positives, row in zip(self._positives, found, strict=True)
        ]
        return float(np.mean(hits))

    def _embed(self, parameters: dict, tokens: np.ndarray, tower: str) -> np.ndarray:
        parts = []
        for start in tqdm(range(0, len(tokens), self._rows), desc=f"dev {tower} texts", delay=5, leave=False):
            chosen = tokens[start : start + self._rows]
            batch = np.full((self._rows, tokens.shape[1]), PADDING_TOKEN, np.int32)
            batch[: len(chosen)] = chosen
            placed = jax.device_put(batch, sharding.batch_sharding(self._mesh))
            parts.append(np.asarray(self._encode(parameters, placed, tower=tower))[: len(chosen)])
        return np.concatenate(parts)


def padded(texts: Sequence[np.ndarray], width: int, *, closing_token: int | None) -> Int32[np.ndarray, "texts width"]:
    """Token lists as rows of a width, filled up with -1; one that is cut still ends with the closing token."""
    rows = np.full((len(texts), width), PADDING_TOKEN, np.int32)
    for row, tokens in zip(rows, texts, strict=True):
        put_tokens(row, tokens, closing_token=closing_token)
    return rows


def _positives(record: QueryRecord, column: dict[tuple[int, int], int]) -> set[int]:
    return {
        column[word]
        for word, level in zip(map(tuple, record.labelled_ids.tolist()), record.labelled_levels, strict=True)
        if level >= Level.POSITIVE and word in column
    }
