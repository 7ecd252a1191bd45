"""Negatives that the trainer mines with its own weights, again and again (ANCE, Xiong et al., arXiv 2007.00808).

A refresh embeds all documents and the queries of the next negatives.refresh_every_steps steps, ranks the documents
exactly, and draws the negatives of every query in these steps by a sampler of crops_jax.negatives. The drawn numbers
are a part of the state, so that a checkpoint holds them and a resumed run has the same batches. The refresh is
synchronous: training waits for it.

Of several processes, all encode together over the mesh and hold the vectors of all documents; each ranks and draws for
its share of the queries.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float32, Int32, Int64

from crops_jax.config import Config
from crops_jax.config.negatives import NegativesConfig
from crops_jax.devices import processes, sharding
from crops_jax.embeddings.mesh_encoder import MeshEncoder
from crops_jax.hashing import DocumentRows, joined, splitmix64
from crops_jax.input_pipeline.batch_reader import cut
from crops_jax.input_pipeline.document_choice import choose_documents
from crops_jax.input_pipeline.drawn_negatives import DrawnNegatives
from crops_jax.input_pipeline.global_batches import queries_of_steps
from crops_jax.labels import Level
from crops_jax.negatives import Sampler, SimAns, TriSampler, UniformSampler, draw_rows
from crops_jax.records import RecordSource
from crops_jax.retrieval.exact import exact_top_k, inner_products, local_mesh
from crops_jax.runs.log import Stopwatch
from crops_jax.training.optimizer import TEMPERATURE
from crops_jax.training.state import TrainState

# The numbers of texts and of queries that are done together: the watchdog sees progress between them.
_DOCUMENTS_AT_ONCE = 16_384
_QUERIES_AT_ONCE = 4096


class Ranking(NamedTuple):
    """The nearest documents of some records.

    vectors: the vectors of their queries. documents: the numbers of the documents, the nearest first. scores: their
    cosines. positive: a mask of the known positives among them.
    """

    vectors: Float32[np.ndarray, "records dim"]
    documents: Int32[np.ndarray, "records k"]
    scores: Float32[np.ndarray, "records k"]
    positive: Bool[np.ndarray, "records k"]


def sampler_of(config: NegativesConfig) -> Sampler:
    """Returns the sampler that a configuration names."""
    if config.sampler == "simans":
        return SimAns(a=config.simans_a, b=config.simans_b)
    if config.sampler == "trisampler":
        return TriSampler(first_stage=config.trisampler_candidates, scale=config.trisampler_scale)
    return UniformSampler(top=config.top)


class RefreshedNegatives:
    """The crops_jax.training.loop.Refresh of a dual encoder."""

    def __init__(
        self,
        source: RecordSource,
        documents: RecordSource,
        model: nnx.Module,
        config: Config,
        *,
        steps: int,
        mesh: Mesh,
    ):
        """
        Args:
          source: the records of the split train.
          documents: the split of all documents.
          model: the model, of which only the structure is used.
          config: the configuration.
          steps: the number of steps of the run.
          mesh: the devices that encode.
        """
        self.documents = documents
        self._source, self._config, self._steps, self._mesh = source, config, steps, mesh
        self._encode = MeshEncoder(model, config, mesh=mesh)
        words = documents.text_index.texts(np.arange(len(documents))).documents[:, :2]
        self._rows = DocumentRows(joined(np.ascontiguousarray(words)))

    def is_due(self, step: int) -> bool:
        return step < self._steps and self._config.negatives.refreshes_after(step)

    def fields(self, step: int) -> dict[str, int]:
        """Returns the number of steps since the refresh whose negatives a step had; nothing before the first one."""
        refreshed = self._config.negatives.last_refresh(step - 1)
        return {} if refreshed is None else {"negatives_staleness_steps": step - 1 - refreshed}

    def end_of_part(self, first_step: int) -> int:
        """Returns the step before which the next refresh, or the end of the run, is after a first step."""
        negatives = self._config.negatives
        refreshed = negatives.last_refresh(first_step)
        following = negatives.warmup_steps if refreshed is None else refreshed + negatives.refresh_every_steps
        return min(self._steps, following)

    def drawn(self, first_step: int, state: TrainState) -> DrawnNegatives | None:
        """Returns the drawn negatives of the step after `first_step` steps; None before the first refresh."""
        refreshed = self._config.negatives.last_refresh(first_step)
        if refreshed is None:
            return None
        first, numbers = refreshed * self._config.data.queries_per_batch, np.asarray(state.negatives)
        return DrawnNegatives(documents=self.documents, first_position=first, numbers=numbers)

    def __call__(
        self, state: TrainState, watch: Stopwatch, *, stops_now: Callable[[], bool] = lambda: False
    ) -> tuple[TrainState, dict[str, Any]] | None:
        step = int(state.step)
        last = min(step + self._config.negatives.refresh_every_steps, self._steps)
        queries = queries_of_steps(self._source, self._config, first_step=step, last_step=last)
        table = np.full(state.negatives.shape, -1, np.int32)  # type: ignore[union-attr]
        mined = self._mine(state.parameters, queries, watch, stops_now)
        if mined is None:
            return None
        table[: len(queries)] = mined
        drawn = table[: len(queries)]
        outcome = {
            "documents": len(self.documents),
            "queries": len(np.unique(queries[:, 1])),
            "negatives": int((drawn >= 0).sum()),
            "negatives_missing": int((drawn < 0).sum()),
        }
        return state._replace(negatives=sharding.spread(table, sharding.replicated(self._mesh))), outcome

    def _mine(
        self,
        parameters: dict,
        queries: Int64[np.ndarray, "queries 2"],
        watch: Stopwatch,
        stops_now: Callable[[], bool],
    ) -> Int32[np.ndarray, "queries columns"] | None:
        """Returns the drawn negatives of the queries, given as positions in the run and numbers of records.

        Returns None once `stops_now()` is true.
        """
        parts = []
        for part in self._document_vectors(parameters, watch):
            parts.append(part)
            if stops_now():
                return None
        vectors = np.concatenate(parts)
        cluster = processes.current()
        numbers = np.unique(queries[:, 1])
        data = self._config.data
        found = np.full((len(queries), data.documents_per_query - data.positives_per_query), -1, np.int32)
        for start in range(0, len(numbers), _QUERIES_AT_ONCE * cluster.count):
            with watch.measure("refresh"):
                some = numbers[start : start + _QUERIES_AT_ONCE * cluster.count]
                own = np.arange(len(some)) % cluster.count == cluster.index
                ranking = self._ranked(parameters, some, own, vectors)
                places = np.flatnonzero(np.isin(queries[:, 1], some[own]))
                row = np.searchsorted(some[own], queries[places, 1])
                found[places] = self._draw(queries[places], row, ranking, vectors, parameters)
            if stops_now():
                return None
        return found if cluster.count == 1 else _of_any_process(found, self._mesh)

    def _document_vectors(self, parameters: dict, watch: Stopwatch) -> Iterator[Float32[np.ndarray, "some dim"]]:
        limit = self._config.encoder.max_document_tokens
        for start in range(0, len(self.documents), _DOCUMENTS_AT_ONCE):
            with watch.measure("refresh"):
                some = range(start, min(start + _DOCUMENTS_AT_ONCE, len(self.documents)))
                tokens = [record.document_tokens[0] for record in self.documents.read(some)]
                yield self._vectors(parameters, tokens, "document", limit)

    def _vectors(self, parameters: dict, texts: Sequence[np.ndarray], tower: Any, limit: int) -> np.ndarray:
        closing = self._source.closing_token
        texts = [cut(tokens, limit, closing_token=closing) for tokens in texts]
        return self._encode(parameters, texts, tower, description=f"refreshing negatives, {tower}")

    def _ranked(
        self,
        parameters: dict,
        numbers: Int64[np.ndarray, "some"],
        own: Bool[np.ndarray, "some"],
        vectors: Float32[np.ndarray, "documents dim"],
    ) -> Ranking:
        """Returns the nearest documents of the own ones of some records, which all processes encode together."""
        records = self._source.read(numbers.tolist())
        limit = self._config.encoder.max_query_tokens
        queries = self._vectors(parameters, [record.query_tokens for record in records], "query", limit)[own]
        k = min(self._config.negatives.top, len(vectors))
        if not len(queries):
            return Ranking(queries, np.zeros((0, k), np.int32), np.zeros((0, k), np.float32), np.zeros((0, k), bool))
        scores, documents = exact_top_k(queries, vectors, k, mesh=local_mesh())
        positive = np.zeros(documents.shape, bool)
        for row, number in enumerate(np.flatnonzero(own).tolist()):
            record = records[number]
            words = record.labelled_ids[record.labelled_levels >= Level.POSITIVE]
            positive[row] = np.isin(documents[row], self._rows.of(joined(np.ascontiguousarray(words))))
        return Ranking(queries, documents, scores, positive)

    def _draw(
        self,
        queries: Int64[np.ndarray, "queries 2"],
        row: Int64[np.ndarray, "queries"],
        ranking: Ranking,
        vectors: Float32[np.ndarray, "documents dim"],
        parameters: dict,
    ) -> Int32[np.ndarray, "queries columns"]:
        """Returns the drawn negatives of queries; row: the row of each of them in `ranking`."""
        negatives, data = self._config.negatives, self._config.data
        sampler = sampler_of(negatives)
        free = ~ranking.positive[row]
        positive_scores = np.zeros(len(row), np.float32)
        to_positive = np.zeros(free.shape, np.float32)
        if not isinstance(sampler, UniformSampler):
            positives = self._positives(queries)
            free &= positives[:, None] >= 0
            if len(row):
                positive_scores = inner_products(ranking.vectors[row], vectors[positives])
            if isinstance(sampler, TriSampler):
                to_positive = _between(vectors, positives, ranking.documents[row])
        positions = draw_rows(
            sampler,
            scores=ranking.scores[row],
            positive_scores=positive_scores,
            to_positive=to_positive,
            free=free,
            temperature=float(np.exp(-np.asarray(parameters[TEMPERATURE]))),
            seed=self._config.training.seed,
            hashes=splitmix64(queries[:, 0].astype(np.uint64)),
            count=data.documents_per_query - data.positives_per_query,
        )
        documents = np.take_along_axis(ranking.documents[row], np.maximum(positions, 0), axis=1)
        return np.where(positions >= 0, documents, -1)

    def _positives(self, queries: Int64[np.ndarray, "queries 2"]) -> Int32[np.ndarray, "queries"]:
        """Returns the number of the first positive that enters the batch with each query; -1 if it is no document."""
        texts, data = self._source.text_index.texts(queries[:, 1]), self._config.data
        bounds = list(zip(texts.starts[:-1].tolist(), texts.starts[1:].tolist(), strict=True))
        chosen = choose_documents(
            [texts.documents[first:last, 2] for first, last in bounds],
            positions=queries[:, 0],
            seed=self._config.training.seed,
            columns=data.positives_per_query,
            positives=data.positives_per_query,
        )
        first = np.array([start + numbers[0] for (start, _), numbers in zip(bounds, chosen, strict=True)], np.int64)
        documents = texts.documents[first]
        rows = self._rows.of(joined(np.ascontiguousarray(documents[:, :2])))
        return np.where(documents[:, 2] >= Level.POSITIVE, rows, -1)


def _between(
    vectors: Float32[np.ndarray, "documents dim"],
    positives: Int32[np.ndarray, "queries"],
    documents: Int32[np.ndarray, "queries k"],
) -> Float32[np.ndarray, "queries k"]:
    """Returns the cosines of the positive of each query and some documents."""
    found = np.empty(documents.shape, np.float32)
    for start in range(0, len(documents), 256):
        some = slice(start, start + 256)
        found[some] = (vectors[documents[some]] @ vectors[positives[some]][:, :, None])[:, :, 0]
    return found


def _of_any_process(numbers: Int32[np.ndarray, "..."], mesh: Mesh) -> Int32[np.ndarray, "..."]:
    """Returns an array of numbers from -1 on, each of which one process knows and the others have as -1."""
    flat = Mesh(mesh.devices.ravel(), ("devices",))
    layout = NamedSharding(flat, PartitionSpec("devices"))
    own = jax.make_array_from_callback((flat.size, *numbers.shape), layout, lambda _: numbers[None])
    greatest: Any = jax.jit(functools.partial(jnp.max, axis=0), out_shardings=sharding.replicated(flat))
    return np.asarray(greatest(own))
