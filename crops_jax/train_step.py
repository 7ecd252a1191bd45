"""One optimiser step on a global batch: state and batch in, state and metrics out, compiled once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from crops_jax import sharding
from crops_jax.config import Config, LossConfig
from crops_jax.cross_encoder_config import CrossEncoderConfig
from crops_jax.input_pipeline import Batch
from crops_jax.labels import Level, SparseLabels, anchor_mask, repeated_queries, sparse_labels
from crops_jax.losses import Split, implementation_that_runs
from crops_jax.losses.configured import configured_loss
from crops_jax.losses.sampling_frequency import DocumentIntervals, no_intervals, observe
from crops_jax.optimizer import learning_rate_schedule, make_optimizer

TEMPERATURE = "log_inverse_temperature"
ANCHOR_LEVELS = tuple(Level)[1:]


class TrainState(NamedTuple):
    """All that changes from step to step.

    step: optimiser steps done.
    parameters: nested dictionary, as nnx.to_pure_dict(nnx.state(model, nnx.Param)) gives it.
    optimizer_state: of optax.
    document_intervals: how often documents enter a batch; None without the logQ correction.
    """

    step: Int32[Array, ""]
    parameters: dict
    optimizer_state: Any
    document_intervals: DocumentIntervals | None = None


class StepMetrics(NamedTuple):
    """Of one step, scalars. Temperature and learning rate are those the step used.

    counters: anchors by level and what the label lookup met (see crops_jax.labels.LookupCounters).
    """

    loss: Float[Array, ""]
    temperature: Float[Array, ""]
    learning_rate: Float[Array, ""]
    grad_norm: Float[Array, ""]
    counters: dict[str, Int32[Array, ""]]


def initial_state(model: nnx.Module, config: Config | CrossEncoderConfig, *, steps: int, mesh: Mesh) -> TrainState:
    """Step 0, laid out over the mesh. The state owns its arrays: a train step may donate them."""
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = make_optimizer(config.optimizer, steps=steps)
    # The optimiser's state is made eagerly: jit would lose the shardings.
    intervals = _no_intervals(config)
    state = TrainState(jnp.zeros((), jnp.int32), parameters, optimizer.init(parameters), intervals)
    return jax.tree.map(
        lambda leaf, place: jax.device_put(jnp.array(leaf, copy=True), place),
        state,
        sharding.tree_shardings(state, mesh),
    )


def make_train_step(
    model: nnx.Module, config: Config, *, steps: int, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """The compiled step. Its first argument is donated.

    The loss runs over all queries and all documents of the global batch, on whichever devices they lie; labels are
    looked up by document id. Dropout is a function of (seed, step).

    Args:
      model: gives the structure (`encode_packed`, a parameter log_inverse_temperature); its parameters are not used.
      config: loss, optimiser, labels_per_query, seed.
      steps: length of the run, for the learning rate.
      mesh: as of crops_jax.sharding.make_mesh.
    """
    graph, _, others = nnx.split(model, nnx.Param, ...)
    optimizer = make_optimizer(config.optimizer, steps=steps)
    schedule = learning_rate_schedule(config.optimizer, steps=steps)

    split = Split(mesh, exchange=config.mesh.documents)

    def loss_function(parameters: dict, batch: Any, step: Array, intervals: Any) -> tuple[Array, tuple]:
        state = nnx.State(jax.tree.map(nnx.Param, parameters))
        encoder: Any = nnx.merge(graph, state, others, copy=True)
        queries, documents = _embeddings(encoder, batch, config, step)
        labels, doc_mask, lookup = sparse_labels(
            batch.labelled_ids,
            batch.labelled_levels,
            batch.document_ids,
            labels_per_query=config.data.labels_per_query,
        )
        repeated = repeated_queries(batch.query_tokens)
        temperature = jnp.exp(-encoder.log_inverse_temperature[...])
        counters = {"repeated_queries": repeated.sum(dtype=jnp.int32), **lookup._asdict(), **_fill(batch.texts)}
        log_probabilities = None
        if intervals is not None:
            intervals, log_probabilities, counters["log_q_first_seen"] = observe(
                intervals, batch.document_ids, doc_mask, step + 1, decay=config.loss.log_q_decay
            )
        loss, met = configured_loss(
            config.loss,
            queries,
            documents,
            labels,
            temperature=temperature,
            query_weights=(~repeated).astype(jnp.float32),
            doc_mask=doc_mask,
            doc_log_probabilities=log_probabilities,
            split=split,
        )
        counters |= met
        counters |= _anchors_by_level(labels, anchor_mask(labels, doc_mask) & ~repeated[:, None])
        return loss, (temperature, counters, intervals)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, (temperature, counters, intervals)), gradients = gradient(
            state.parameters, batch, state.step, state.document_intervals
        )
        if not config.loss.learn_temperature:
            gradients = {**gradients, TEMPERATURE: jnp.zeros_like(gradients[TEMPERATURE])}
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.parameters)
        parameters: Any = optax.apply_updates(state.parameters, updates)
        parameters = {**parameters, TEMPERATURE: _within_bounds(parameters[TEMPERATURE], config.loss)}
        metrics = StepMetrics(
            loss, temperature, jnp.asarray(schedule(state.step)), optax.global_norm(gradients), counters
        )
        return TrainState(state.step + 1, parameters, optimizer_state, intervals), metrics

    abstract = jax.eval_shape(lambda: _abstract_state(model, optimizer, config))
    state_shardings = sharding.tree_shardings(abstract, mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(state_shardings, sharding.batch_sharding(mesh)),
        out_shardings=(state_shardings, sharding.replicated(mesh)),
    )


def implementation_name(config: Config) -> str:
    """The implementation of the loss that the train step of this configuration runs."""
    queries = config.data.queries_per_batch
    empty = jax.ShapeDtypeStruct((queries, config.data.labels_per_query), jnp.int32)
    return implementation_that_runs(
        config.loss.implementation,
        SparseLabels(empty, empty),  # type: ignore[arg-type]
        queries=queries,
        docs=queries * config.data.documents_per_query,
    )


def device_batch(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows of a global batch as parts of arrays over the whole mesh."""
    place = sharding.batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(place, array), batch)


def _abstract_state(model: nnx.Module, optimizer: optax.GradientTransformation, config: Config) -> TrainState:
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer.init(parameters), _no_intervals(config))


def _no_intervals(config: Config | CrossEncoderConfig) -> DocumentIntervals | None:
    if isinstance(config, Config) and config.loss.log_q_correction:
        return no_intervals(config.loss.log_q_buckets)
    return None


def _fill(texts: Any) -> dict[str, Array]:
    """Tokens of the batch, and the places for tokens that its rows have."""
    return {
        "tokens": jnp.stack([(one.tokens >= 0).sum(dtype=jnp.int32) for one in texts]).sum(),
        "token_places": jnp.int32(sum(one.tokens.size for one in texts)),
    }


def _embeddings(encoder: Any, batch: Any, config: Config, step: Array) -> tuple[Array, Array]:
    """Unit vectors of the batch's queries [B, dim] and document columns [N, dim]; dropout by (seed, step)."""
    keys = [None] * len(batch.texts)
    if config.encoder.dropout:
        key = jax.random.fold_in(jax.random.key(config.training.seed), step)
        keys = list(jax.random.split(key, len(batch.texts)))
    towers = ("query",) if config.encoder.shared_towers else ("query", "document")
    vectors = [
        encoder.encode_packed(texts, tower=tower, micro_batches=config.training.micro_batches, dropout_key=key)
        for texts, tower, key in zip(batch.texts, towers, keys, strict=True)
    ]
    if config.encoder.shared_towers:
        queries = batch.query_tokens.shape[0] // vectors[0].shape[0]
        vectors = [vectors[0][:, :queries], vectors[0][:, queries:]]
    query_vectors, document_vectors = (found.reshape(-1, found.shape[-1]) for found in vectors)
    return query_vectors, document_vectors


def _within_bounds(log_inverse_temperature: Array, config: LossConfig) -> Array:
    low, high = 1 / config.maximum_temperature, 1 / config.minimum_temperature
    return jnp.clip(log_inverse_temperature, jnp.log(jnp.float32(low)), jnp.log(jnp.float32(high)))


def _anchors_by_level(labels: SparseLabels, is_anchor: Array) -> dict[str, Array]:
    return {
        f"anchors_level_{level.value}": (is_anchor & (labels.level == level)).sum(dtype=jnp.int32)
        for level in ANCHOR_LEVELS
    }
