"""The train step of a dual encoder on a global batch: it maps (state, batch) to (state, metrics)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from crops_jax.config import Config, LossConfig
from crops_jax.devices import sharding
from crops_jax.errors import InputError
from crops_jax.input_pipeline import Batch
from crops_jax.labels import LookupCounters, SparseLabels, repeated_queries, scored_sparse_labels, sparse_labels
from crops_jax.losses import Split
from crops_jax.losses.arguments import LossInputs, ScoreInputs
from crops_jax.losses.configured import configured_implementation, configured_loss
from crops_jax.losses.level_statistics import LevelStatistics
from crops_jax.losses.level_sums.api import replicated_documents
from crops_jax.losses.log_q import DocumentIntervals, observe
from crops_jax.models.attention.api import attention_that_runs
from crops_jax.models.attention.plain import positions
from crops_jax.models.poly_encoder import poly_scores
from crops_jax.runs import checksums
from crops_jax.text.packing import packed_row_width
from crops_jax.training.optimizer import TEMPERATURE, learning_rate_schedule, make_optimizer, updates_done
from crops_jax.training.state import TrainState, abstract_state, after_step, jitted_step

Rows = TypeVar("Rows")


class StepMetrics(NamedTuple):
    """The metrics of one step. Temperature and learning rate are those that the step used.

    counters: the counters of the label lookup (see crops_jax.labels.LookupCounters), of the loss and of the batch.
    levels: the numbers of anchors of each level, and how well the scores order them.
    distillation: the distillation loss without its weight; None for runs that distil nothing.
    """

    loss: Float[Array, ""]
    temperature: Float[Array, ""]
    learning_rate: Float[Array, ""]
    grad_norm: Float[Array, ""]
    counters: dict[str, Int32[Array, ""] | Float[Array, ""]]
    levels: LevelStatistics
    distillation: Float[Array, ""] | None = None


def make_train_step(
    model: nnx.Module, config: Config, *, steps: int, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Returns the compiled step. Its first argument is donated.

    The loss compares all queries with all documents of the global batch, whichever devices hold them; labels are
    looked up by document id. Dropout is a function of (seed, step).

    Args:
      model: a model with `encode_packed` and a parameter log_inverse_temperature. Only its structure is used; shapes
        can stand for its parameters.
      config: the settings of the loss, the optimiser, the data and the seed.
      steps: the length of the run, which the learning rate depends on.
      mesh: a mesh of crops_jax.devices.sharding.make_mesh.
    """
    return compiled_step(_loss_function(model, config, mesh=mesh), model, config, steps=steps, mesh=mesh)


def compiled_step(
    loss_function: Callable[[dict, Any, Array, DocumentIntervals | None], tuple[Array, "LossDetails"]],
    model: nnx.Module,
    config: Config,
    *,
    steps: int,
    mesh: Mesh,
    frozen: Sequence[str] = (),
    batch_layout: Any = None,
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """Returns the compiled step that follows the gradient of a loss. Its first argument is donated.

    Args:
      loss_function: the loss, of the parameters, the batch, the number of the step, and the intervals before the batch.
      model, config, steps, mesh: see `make_train_step`.
      frozen: the names of parts of the model that the step leaves unchanged.
      batch_layout: the shardings of a batch; None: all of its arrays are divided over the data axes.
    """
    optimizer = make_optimizer(config.optimizer, steps=steps)
    schedule = learning_rate_schedule(config.optimizer, steps=steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, details), gradients = gradient(state.parameters, batch, state.step, state.document_intervals)
        if not config.loss.learn_temperature:
            gradients = {**gradients, TEMPERATURE: jnp.zeros_like(gradients[TEMPERATURE])}
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.parameters)
        parameters: Any = optax.apply_updates(state.parameters, updates)
        parameters = {**parameters, **{name: state.parameters[name] for name in frozen}}
        parameters = {**parameters, TEMPERATURE: _within_bounds(parameters[TEMPERATURE], config.loss)}
        metrics = StepMetrics(
            loss=loss,
            temperature=details.temperature,
            learning_rate=jnp.asarray(schedule(updates_done(state.optimizer_state))),
            grad_norm=optax.global_norm(gradients),
            counters=details.counters,
            levels=details.levels,
            distillation=details.distillation,
        )
        updated = state._replace(
            parameters=parameters, optimizer_state=optimizer_state, document_intervals=details.intervals
        )
        return after_step(state, updated, metrics.loss, metrics.grad_norm, config=config.optimizer), metrics

    state = abstract_state(model, config, steps=steps, mesh=mesh)
    return jitted_step(train_step, state, mesh=mesh, batch_layout=batch_layout)


def implementation_name(config: Config) -> str:
    """Returns the implementation of the loss that the step runs. Raises InputError when the named one cannot run."""
    if config.encoder.query_codes:
        return "dense"  # the configuration refuses any other
    queries = config.data.queries_per_batch
    empty = jax.ShapeDtypeStruct((queries, config.data.labels_per_query), jnp.int32)
    try:
        return configured_implementation(
            config.loss,
            SparseLabels(empty, empty),  # type: ignore[arg-type]
            queries=queries,
            docs=queries * config.data.documents_per_query,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def attention_name(config: Config, *, mesh: Mesh) -> str:
    """Returns the attention that the train step runs. Raises InputError when the named one cannot run."""
    limits = config.encoder
    row_tokens = config.data.row_tokens or packed_row_width(limits.max_query_tokens, limits.max_document_tokens)
    try:
        return attention_that_runs(config.encoder, mesh=mesh, row_tokens=row_tokens)
    except ValueError as error:
        raise InputError(str(error)) from error


def device_batch(batch: Rows, mesh: Mesh) -> Rows:
    """Returns this process's rows of a global batch, a tree of arrays, as parts of arrays over the whole mesh."""
    layout = sharding.batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(layout, array), batch)


class LossDetails(NamedTuple):
    """The results of the loss beside its value, as in StepMetrics.

    intervals: those of the logQ correction after this batch.
    """

    temperature: Float[Array, ""]
    counters: dict[str, Int32[Array, ""] | Float[Array, ""]]
    levels: LevelStatistics
    intervals: DocumentIntervals | None
    distillation: Float[Array, ""] | None = None


def _loss_function(
    model: nnx.Module, config: Config, *, mesh: Mesh
) -> Callable[[dict, Any, Array, DocumentIntervals | None], tuple[Array, LossDetails]]:
    """Returns the loss as a function of parameters, batch, number of the step, and the intervals before the batch."""
    graph, _, others = nnx.split(model, nnx.Param, ...)
    split = Split(mesh, axes=sharding.DATA_AXES, exchange=config.mesh.documents)
    flash = mesh if attention_name(config, mesh=mesh) == "flash" else None

    def loss_function(parameters, batch, step, intervals):
        state = nnx.State(jax.tree.map(nnx.Param, parameters))
        encoder: Any = nnx.merge(graph, state, others, copy=True)
        with sharding.traced_over(mesh):
            encode = _contexts if config.encoder.query_codes else _embeddings
            queries, documents = encode(encoder, batch, config, step, flash)
        labels, doc_mask, lookup, teacher_scores = _labels(batch, config)
        repeated = repeated_queries(batch.query_tokens)
        temperature = jnp.exp(-encoder.log_inverse_temperature[...])
        counters = {"repeated_queries": repeated.sum(dtype=jnp.int32), **lookup._asdict(), **fill_of(batch.texts)}
        counters[checksums.SAMPLES_FIELD] = checksums.batch_checksum(batch, step)
        log_probabilities = None
        if intervals is not None:
            intervals, log_probabilities, counters["log_q_first_seen"] = observe(
                intervals, batch.document_ids, doc_mask, step + 1, decay=config.loss.log_q_decay
            )
        weights = (~repeated).astype(jnp.float32)
        common = (labels, weights, doc_mask, log_probabilities, teacher_scores)
        if config.encoder.query_codes:
            scores = poly_scores(queries, replicated_documents(documents, split), temperature)
            inputs = ScoreInputs(scores, *common)
        else:
            inputs = LossInputs(queries, documents, *common)
        found = configured_loss(config.loss, inputs, temperature=temperature, split=split)
        details = LossDetails(temperature, counters | found.counters, found.levels, intervals, found.distillation)
        return found.loss, details

    return loss_function


def _labels(batch: Any, config: Config) -> tuple[SparseLabels, Array, LookupCounters, Array | None]:
    """Returns labels, document mask and counters, and the scores of a teacher if the configuration distils them."""
    limit = config.data.labels_per_query
    ids, levels, documents = batch.labelled_ids, batch.labelled_levels, batch.document_ids
    if config.loss.distillation == "none":
        return (*sparse_labels(ids, levels, documents, labels_per_query=limit), None)
    return scored_sparse_labels(ids, levels, batch.labelled_scores, documents, labels_per_query=limit)


def fill_of(texts: Any) -> dict[str, Array]:
    """Returns the tokens of the batch, the token positions of its rows, and the sum over its texts of n (n + 1) / 2."""
    return {
        "tokens": jnp.stack([(packed.tokens >= 0).sum(dtype=jnp.int32) for packed in texts]).sum(),
        "token_places": jnp.int32(sum(packed.tokens.size for packed in texts)),
        "causal_pairs": jnp.stack([_causal_pairs(packed) for packed in texts]).sum(),
    }


def _causal_pairs(texts: Any) -> Array:
    """Returns the sum of n (n + 1) / 2 over texts of n tokens as a float32, because it can exceed the int32 range."""
    tokens, segments = (array.reshape(-1, array.shape[-1]) for array in (texts.tokens, texts.segments))
    seen = jnp.where(tokens >= 0, positions(tokens, segments) + 1, 0)
    return seen.sum(axis=1).astype(jnp.float32).sum()


def _embeddings(encoder: Any, batch: Any, config: Config, step: Array, flash: Mesh | None) -> tuple[Array, Array]:
    """Returns unit vectors of the batch's queries [B, dim] and documents [N, dim]; dropout depends on (seed, step)."""
    vectors = _encoded(encoder.encode_packed, batch, config, step, flash)
    if config.encoder.shared_towers:
        queries = batch.query_tokens.shape[0] // vectors[0].shape[0]
        vectors = [vectors[0][:, :queries], vectors[0][:, queries:]]
    query_vectors, document_vectors = (array.reshape(-1, array.shape[-1]) for array in vectors)
    return query_vectors, document_vectors


def _contexts(encoder: Any, batch: Any, config: Config, step: Array, flash: Mesh | None) -> tuple[Array, Array]:
    """Returns the context vectors of the batch's queries [B, codes, dim] and unit vectors of its documents [N, dim]."""
    states = _encoded(encoder.packed_states, batch, config, step, flash)
    queries = documents = batch.texts[0]
    if config.encoder.shared_towers:
        count = batch.query_tokens.shape[0] // len(states[0])
        queries = queries._replace(places=queries.places[:, :count])
        documents = documents._replace(places=documents.places[:, count:])
    else:
        documents = batch.texts[1]
    contexts = encoder.packed_contexts(states[0], queries)
    vectors = encoder.pooled_states(states[-1], documents)
    return contexts.reshape(-1, *contexts.shape[2:]), vectors.reshape(-1, vectors.shape[-1])


def _encoded(encode: Callable[..., Array], batch: Any, config: Config, step: Array, flash: Mesh | None) -> list[Array]:
    """Returns what a tower makes of each of the packed texts of a batch; dropout depends on (seed, step)."""
    keys = [None] * len(batch.texts)
    if config.encoder.dropout:
        key = jax.random.fold_in(jax.random.key(config.training.seed), step)
        keys = list(jax.random.split(key, len(batch.texts)))
    towers = ("query",) if config.encoder.shared_towers else ("query", "document")
    shared = {"micro_batches": config.training.micro_batches, "flash": flash}
    return [
        encode(texts, tower=tower, dropout_key=key, **shared)
        for texts, tower, key in zip(batch.texts, towers, keys, strict=True)
    ]


def _within_bounds(log_inverse_temperature: Array, config: LossConfig) -> Array:
    """Returns the parameter clipped to the limits of the temperature."""
    low, high = 1 / config.maximum_temperature, 1 / config.minimum_temperature
    return jnp.clip(log_inverse_temperature, jnp.log(jnp.float32(low)), jnp.log(jnp.float32(high)))
