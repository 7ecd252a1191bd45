"""One step over meshes of 1, 8 and 2 x 2 x 2 devices, what it learns, and what it reports."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.hashing import document_id_words
from crops_jax.input_pipeline import Batch
from crops_jax.labels import Level
from crops_jax.models.dual_encoder import DualEncoder
from crops_jax.runs import checksums
from crops_jax.text.packing import PackedTexts, assign_rows, lay_out
from crops_jax.training.optimizer import TEMPERATURE
from crops_jax.training.step import device_batch, make_train_step
from tests.tiny_run import CONFIG, VOCABULARY, BagEncoder, state_of

STEPS = 30
PLAIN = CONFIG.replace(encoder={"dropout": 0.0})
MESHES = [MeshConfig(data=1), MeshConfig(data=8), MeshConfig(data=2, fsdp=2, model=2)]


def batch_of(seed=0, *, queries=8, columns=2, labelled=5, groups=1) -> Batch:
    """Queries that share words with their positive; some columns are empty, one document comes twice."""
    random = np.random.default_rng(seed)
    documents = np.full((queries * columns, 12), -1, np.int32)
    for row in documents:
        length = random.integers(3, 13)
        row[:length] = random.integers(5, VOCABULARY, length)
    ids = document_id_words(f"d{seed}-{i}" for i in range(queries * columns))
    ids[-1] = ids[0]
    ids[3], documents[3] = 0, -1
    query_tokens = np.full((queries, 6), -1, np.int32)
    query_tokens[:, :3] = documents[::columns, :3]
    labelled_ids = np.zeros((queries, labelled, 2), np.int32)
    levels = np.zeros((queries, labelled), np.int32)
    labelled_ids[:, 0], levels[:, 0] = ids[::columns], Level.POSITIVE
    labelled_ids[:, 1], levels[:, 1] = ids[1::columns], Level.RANKED_NOT_SHOWN
    levels[(labelled_ids == 0).all(axis=2)] = 0
    return Batch(packed(query_tokens, documents, groups), query_tokens, ids, labelled_ids, levels)


def packed(query_tokens, documents, groups) -> tuple[PackedTexts]:
    """As crops_jax.input_pipeline.batch_reader packs: the queries of a group, then its documents."""
    parts = zip(np.split(query_tokens, groups), np.split(documents, groups), strict=True)
    texts = [[row[row >= 0] for rows in part for row in rows] for part in parts]
    rows = [assign_rows([len(text) for text in part], row_tokens=16) for part in texts]
    count = max(one.count for one in rows)
    laid_out = [lay_out(part, one, row_tokens=16, num_rows=count) for part, one in zip(texts, rows, strict=True)]
    return (PackedTexts(*map(np.stack, zip(*laid_out))),)


def causal_pairs(batch) -> int:
    lengths = np.concatenate([np.unique(row[row >= 0], return_counts=True)[1] for row in batch.texts[0].segments[0]])
    return int((lengths * (lengths + 1) // 2).sum())


def bag(config):
    return BagEncoder(config, seed=1)


def bert(config):
    return DualEncoder(config.encoder, initial_temperature=config.loss.initial_temperature, rngs=nnx.Rngs(1))


@functools.cache
def compiled(model_of, config, mesh_config):
    mesh = sharding.make_mesh(mesh_config)
    return mesh, make_train_step(model_of(config), config, steps=STEPS, mesh=mesh)


def start(config=PLAIN, mesh_config=MESHES[0], model_of=bag):
    mesh, step = compiled(model_of, config, mesh_config)
    return state_of(model_of(config), config, steps=STEPS, mesh=mesh), step, mesh


def first_moments(state):
    """10 x the clipped gradients of the first step, leaf by leaf."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.optimizer_state)
        if ".mu" in jax.tree_util.keystr(path)
    }


@pytest.mark.parametrize("model_of", [bag, pytest.param(bert, marks=pytest.mark.slow)])
def test_every_mesh_gives_the_same_loss_and_gradients(model_of):
    results, parameters, argument_bytes = [], [], []
    for mesh_config in MESHES:
        state, step, mesh = start(mesh_config=mesh_config, model_of=model_of)
        batch = device_batch(batch_of(groups=sharding.num_groups(mesh)), mesh)
        executable = step.lower(state, batch).compile()
        argument_bytes.append(executable.memory_analysis().argument_size_in_bytes)
        state, metrics = executable(state, batch)
        results.append((float(metrics.loss), float(metrics.grad_norm), first_moments(state), metrics.counters))
        for _ in range(2):
            state, metrics = executable(state, batch)
        parameters.append(jax.device_get(state.parameters))
        split = sharding.tree_shardings(state, mesh)
        assert jax.tree.all(jax.tree.map(lambda leaf, place: leaf.sharding == place, state, split))
    # Matrices and their moments lie in four parts.
    assert argument_bytes[2] < 0.5 * argument_bytes[1] < 0.5 * argument_bytes[0]
    for others in parameters[1:]:
        differences = jax.tree.map(lambda one, other: np.abs(one - other).max(), parameters[0], others)
        assert max(jax.tree.leaves(differences)) <= 1e-5
    loss, norm, moments, counters = results[0]
    largest = max(np.abs(moment).max() for moment in moments.values())
    assert largest > 0
    for other_loss, other_norm, other_moments, other_counters in results[1:]:
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert other_norm == pytest.approx(norm, rel=1e-5)
        assert other_moments.keys() == moments.keys()
        assert max(np.abs(moments[name] - other_moments[name]).max() for name in moments) <= 1e-5 * largest
        # How many places for tokens there are is a matter of the groups.
        counts, other_counts = (jax.tree.map(int, one) | {"token_places": 0} for one in (counters, other_counters))
        assert other_counts == counts


def test_loss_goes_down_and_the_report_is_right():
    state, step, mesh = start()
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, device_batch(batch_of(number % 2), mesh))
        losses.append(float(metrics.loss))
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    assert int(state.step) == STEPS
    counters = {name: int(value) for name, value in metrics.counters.items() if name != checksums.SAMPLES_FIELD}
    tokens = batch_of((STEPS - 1) % 2).texts[0].tokens
    assert counters == {
        "tokens": int((tokens >= 0).sum()),
        "token_places": tokens.size,
        # n (n + 1) / 2: every token of these texts sees itself and what stands before it in its text.
        "causal_pairs": causal_pairs(batch_of((STEPS - 1) % 2)),
        "duplicate_documents": 1,
        "false_negatives_avoided": 0,
        "label_overflow": 0,
        "repeated_queries": 0,
    }
    # The empty column 3, and column 15, a second copy of column 0 that is a negative of the last query.
    assert metrics.levels.anchors.tolist() == [0, 7, 0, 8, 0]
    assert metrics.levels.recalled[3] >= 6
    assert metrics.levels.score_gap[3] > 0


@pytest.mark.parametrize(("form", "meshes"), [("kl", 2), ("margin_mse", 1)])  # the mean over devices is one function
def test_distillation_is_the_same_over_meshes_and_brings_the_scores_to_the_order_of_the_teacher(form, meshes):
    config = PLAIN.replace(
        loss={"distillation": form, "distillation_weight": 20.0}, optimizer={"temperature_learning_rate": 1e-9}
    )
    runs = [start(config, mesh_config) for mesh_config in MESHES[:meshes]]
    first = []
    for state, step, mesh in runs:
        batch = with_scores(batch_of(groups=sharding.num_groups(mesh)))
        first.append(step(state, device_batch(batch, mesh)))
    numbers = [(float(one.loss), float(one.distillation), float(one.grad_norm)) for _, one in first]
    assert numbers[-1] == pytest.approx(numbers[0], rel=1e-5)
    assert numbers[0][1] > 0
    plain, plain_step, plain_mesh = start()
    _, plain_metrics = plain_step(plain, device_batch(batch_of(), plain_mesh))
    assert plain_metrics.distillation is None
    assert numbers[0][0] == pytest.approx(float(plain_metrics.loss) + 20 * numbers[0][1], rel=1e-5)

    (state, metrics), (_, step, mesh) = first[0], runs[0]
    for _ in range(STEPS - 1):
        state, metrics = step(state, device_batch(with_scores(batch_of(groups=sharding.num_groups(mesh))), mesh))
    assert float(metrics.distillation) < 0.5 * numbers[0][1]


def with_scores(batch) -> Batch:
    """The teacher prefers the negative of every second query, which no loss over the levels would."""
    scores = np.full(batch.labelled_levels.shape, np.nan, np.float32)
    scores[:, 0] = 0.6
    scores[:, 1] = np.where(np.arange(len(scores)) % 2, 0.9, 0.3)
    return batch._replace(labelled_scores=scores)


def test_a_repeated_query_is_merged():
    state, step, mesh = start()
    batch = batch_of()
    batch.query_tokens[1], batch.labelled_ids[1], batch.labelled_levels[1] = (
        batch.query_tokens[0],
        batch.labelled_ids[0],
        batch.labelled_levels[0],
    )
    _, metrics = step(state, device_batch(batch, mesh))
    assert int(metrics.counters["repeated_queries"]) == 1
    assert metrics.levels.anchors[3] == 7


def test_a_batch_without_anchors_changes_nothing_but_decay():
    state, step, mesh = start()
    batch = batch_of()
    batch.labelled_levels[:] = 0
    before = float(state.parameters[TEMPERATURE])
    state, metrics = step(state, device_batch(batch, mesh))
    assert (float(metrics.loss), float(metrics.grad_norm)) == (0.0, 0.0)
    assert float(state.parameters[TEMPERATURE]) == before


def test_temperature_stays_in_its_bounds():
    config = PLAIN.replace(
        loss={"initial_temperature": 0.1, "minimum_temperature": 0.0999, "maximum_temperature": 0.1001},
        optimizer={"learning_rate": 0.1, "warmup_fraction": 0.0},
    )
    state, step, mesh = start(config)
    for number in range(3):
        state, metrics = step(state, device_batch(batch_of(number), mesh))
        temperature = np.exp(-np.float64(state.parameters[TEMPERATURE]))
        assert 0.0999 * (1 - 1e-6) <= temperature <= 0.1001 * (1 + 1e-6)
    assert float(metrics.temperature) != pytest.approx(0.1, rel=1e-5)


def test_the_first_step_moves_the_temperature_at_its_own_rate():
    state, step, mesh = start()
    before = float(state.parameters[TEMPERATURE])
    state, _ = step(state, device_batch(batch_of(), mesh))
    # The first of 3 steps of warm-up; Adam's first update has the size of its rate.
    moved = abs(float(state.parameters[TEMPERATURE]) - before)
    assert moved == pytest.approx(PLAIN.optimizer.temperature_learning_rate / 4, rel=1e-3)


def test_a_fixed_temperature_does_not_move_and_takes_no_part_in_clipping():
    config = PLAIN.replace(loss={"learn_temperature": False})
    state, step, mesh = start(config)
    before = float(state.parameters[TEMPERATURE])
    state, _ = step(state, device_batch(batch_of(), mesh))
    assert float(state.parameters[TEMPERATURE]) == before


def test_dropout_is_a_function_of_the_step():
    losses = []
    for number in (0, 0, 1):
        state, step, mesh = start(CONFIG)
        state = state._replace(step=jnp.full_like(state.step, number))
        losses.append(float(step(state, device_batch(batch_of(), mesh))[1].loss))
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
