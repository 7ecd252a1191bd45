"""Training of the query tower alone, on the first documents of each query in a whole corpus of frozen vectors (ADORE).

At every step the queries of the batch are ranked against all documents, as the query tower is then, so that hard
negatives are never out of date (Zhan et al., SIGIR 2021, arXiv 2104.08051).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int32

from crops_jax.config import Config
from crops_jax.devices import sharding
from crops_jax.errors import InputError
from crops_jax.hashing import DocumentRows, id_hashes, joined
from crops_jax.input_pipeline import Batch
from crops_jax.labels import ANCHOR_LEVELS, IGNORE, Level, repeated_queries
from crops_jax.losses.configured import pair_formula
from crops_jax.losses.level_statistics import LevelStatistics
from crops_jax.losses.pairwise.scored_batch import ScoredBatch
from crops_jax.runs import checksums
from crops_jax.training.state import TrainState
from crops_jax.training.step import LossDetails, StepMetrics, compiled_step, fill_of

LOSSES = ("ranknet", "lambda_mrr", "lambda_ndcg", "pairwise_log")
"""The losses that compare documents of one query, which can be computed over documents of its own."""


class QueryBatch(NamedTuple):
    """A batch of queries, the rows of their positives in the corpus (-1: none), and the vectors of the corpus."""

    queries: Batch
    positive_rows: Int32[Any, "B L"]
    vectors: Float32[Any, "documents dim"]


class FrozenDocuments:
    """The vectors of a corpus, and the rows of its documents by the hashes that records hold."""

    def __init__(self, ids: Sequence[str], vectors: Float32[np.ndarray, "documents dim"]):
        """
        Args:
          ids: the ids of the documents.
          vectors: their unit vectors.
        """
        self._rows = DocumentRows(id_hashes(ids))
        self.vectors = np.asarray(vectors, np.float32)

    def positive_rows(self, batch: Batch) -> Int32[np.ndarray, "B L"]:
        """Returns the rows of the positives (levels 4 and 5) of each query; -1 in the other positions.

        A positive that the corpus lacks, such as a document that a language model wrote, has no row.
        """
        hashes = joined(np.ascontiguousarray(batch.labelled_ids).reshape(-1, 2)).reshape(batch.labelled_levels.shape)
        return np.where(batch.labelled_levels >= Level.POSITIVE, self._rows.of(hashes), -1).astype(np.int32)


def check_frozen(config: Config) -> None:
    """Raises InputError when a configuration cannot train the query tower alone."""
    if config.encoder.shared_towers:
        raise InputError(
            "--document-embeddings freezes the document tower, and the towers are shared; add "
            "--encoder.shared-towers False"
        )
    if config.encoder.query_codes:
        raise InputError(
            "--document-embeddings ranks a corpus by one vector of a query, and a Poly-encoder has "
            f"{config.encoder.query_codes}; add --encoder.query-codes 0"
        )
    if config.loss.name not in LOSSES or config.loss.log_q_correction or config.loss.matryoshka_dims:
        raise InputError(
            f"--document-embeddings takes the losses {', '.join(LOSSES)} of the full width, found {config.loss.name}"
        )
    if config.negatives.refresh_every_steps:
        raise InputError(
            "--document-embeddings ranks all documents at every step, so that nothing is left to refresh; leave "
            "--negatives.refresh-every-steps out"
        )
    if config.loss.distillation != "none":
        raise InputError(
            "--document-embeddings takes documents from the whole corpus, which the records have no scores of; leave "
            "--loss.distillation out"
        )


def make_query_step(
    model: nnx.Module, config: Config, *, steps: int, mesh: Mesh
) -> Callable[[TrainState, QueryBatch], tuple[TrainState, StepMetrics]]:
    """Returns the compiled step, which leaves the document tower unchanged. Its first argument is donated.

    The arguments are those of `crops_jax.training.step.make_train_step`.
    """
    graph, _, others = nnx.split(model, nnx.Param, ...)

    def loss_function(parameters, batch, step, intervals):
        state = nnx.State(jax.tree.map(nnx.Param, parameters))
        encoder: Any = nnx.merge(graph, state, others, copy=True)
        key = None
        if config.encoder.dropout:
            key = jax.random.fold_in(jax.random.key(config.training.seed), step)
        texts, tokens = batch.queries.texts[:1], batch.queries.query_tokens
        with sharding.traced_over(mesh):
            encoded = encoder.encode_packed(
                texts[0], tower="query", micro_batches=config.training.micro_batches, dropout_key=key
            )
        queries = encoded.reshape(-1, encoded.shape[-1])
        repeated = repeated_queries(tokens)
        counters = {"repeated_queries": repeated.sum(dtype=jnp.int32), **fill_of(texts)}
        counters[checksums.SAMPLES_FIELD] = checksums.batch_checksum(batch.queries, step)
        temperature = jnp.exp(-encoder.log_inverse_temperature[...])
        scored = first_of_corpus(queries, batch.vectors, batch.positive_rows, top=config.loss.corpus_top)
        loss, levels = loss_over_corpus(config.loss.name, scored, temperature, counted=~repeated)
        return loss, LossDetails(temperature, counters, levels, intervals)

    layout = sharding.batch_sharding(mesh)
    batch_layout = QueryBatch(layout, layout, sharding.replicated(mesh))  # type: ignore[arg-type]
    return compiled_step(
        loss_function, model, config, steps=steps, mesh=mesh, frozen=("document_tower",), batch_layout=batch_layout
    )


def first_of_corpus(
    queries: Float[Array, "queries dim"],
    vectors: Float[Array, "documents dim"],
    positive_rows: Int32[Array, "queries positives"],
    *,
    top: int,
) -> ScoredBatch:
    """Returns the positives of each query, and the first `top` documents of the corpus less its positives.

    The columns of a query are documents of its own: the positives in the given order (level 4), and then the others by
    their scores, best first (level 0). Columns without a document are ignored. No gradient flows through the choice.
    """
    is_positive = positive_rows >= 0
    rows = jnp.arange(len(queries), dtype=jnp.int32)[:, None]
    every = jax.lax.stop_gradient(queries) @ vectors.T
    # A column past the end is dropped, so that positions without a positive change nothing.
    every = every.at[rows, jnp.where(is_positive, positive_rows, len(vectors))].set(-jnp.inf, mode="drop")
    found, nearest = jax.lax.top_k(every, min(top, len(vectors)))
    columns = jnp.concatenate([jnp.maximum(positive_rows, 0), nearest], axis=1)
    level = jnp.concatenate(
        [jnp.where(is_positive, int(Level.POSITIVE), IGNORE), jnp.where(found > -jnp.inf, 0, IGNORE)], axis=1
    ).astype(jnp.int32)
    score = jnp.einsum("qd,qkd->qk", queries, jax.lax.stop_gradient(vectors)[columns])
    anchors = jnp.arange(positive_rows.shape[1], dtype=jnp.int32)[None, :]
    return ScoredBatch(
        score,
        level,
        jnp.broadcast_to(anchors, positive_rows.shape),
        jnp.where(is_positive, int(Level.POSITIVE), 0).astype(jnp.int32),
        None,
    )


def loss_over_corpus(
    name: str, scored: ScoredBatch, temperature: Float[Array, ""], *, counted: Bool[Array, "queries"]
) -> tuple[Float[Array, ""], LevelStatistics]:
    """Returns a loss of LOSSES, as the mean over all pairs of a positive and another document, and its statistics.

    Args:
      name: the name of the loss.
      scored: the documents of each query.
      temperature: a positive scalar.
      counted: the mask of the queries that count.
    """
    terms = pair_formula(name)(scored, temperature)
    pairs = jnp.where(counted[:, None], terms.counted, 0)
    total = jnp.where(pairs > 0, terms.loss * pairs, 0.0).sum()
    loss = jnp.where(jnp.isfinite(scored.score).all(), total / jnp.maximum(pairs.sum(), 1), jnp.nan)
    positives = scored.anchor_level.shape[1]
    greatest = jnp.where(scored.level == 0, scored.score, -jnp.inf).max(axis=1, keepdims=True)
    gap = jnp.where(pairs > 0, jax.lax.stop_gradient(scored.score[:, :positives] - greatest), 0.0)
    at_level = jnp.asarray([level == Level.POSITIVE for level in ANCHOR_LEVELS])
    statistics = LevelStatistics(
        anchors=jnp.where(at_level, (pairs > 0).sum(dtype=jnp.int32), 0),
        recalled=jnp.where(at_level, (gap > 0).sum(dtype=jnp.int32), 0),
        score_gap=jnp.where(at_level, gap.sum(), 0.0),
    )
    return loss, statistics
