"""A few dozen records and a configuration of one small layer, for tests of training."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax import nnx
from jax.sharding import Mesh
from tokenizers import models, pre_tokenizers

from crops_jax import artifacts
from crops_jax.config import (
    Config,
    DataConfig,
    EncoderConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    TrainingConfig,
)
from crops_jax.hashing import document_id_words
from crops_jax.labels import Level
from crops_jax.models.parameters import place_parameters
from crops_jax.records import ALL_DOCUMENTS, QueryRecord, write_records
from crops_jax.runs.log import TIMING_FIELDS
from crops_jax.text import tokenizer
from crops_jax.text.packing import segments_per_row
from crops_jax.training import dual_encoder
from crops_jax.training.state import TrainState, initial_state

VOCABULARY = 48

CONFIG = Config(
    encoder=EncoderConfig(
        vocabulary_size=VOCABULARY,
        width=16,
        layers=1,
        heads=2,
        feed_forward_width=32,
        max_positions=12,
        max_query_tokens=6,
        max_document_tokens=12,
        dropout=0.1,
    ),
    data=DataConfig(queries_per_batch=8, documents_per_query=2, labels_per_query=8),
    loss=LossConfig(initial_temperature=0.1),
    optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=1e-2),
    mesh=MeshConfig(data=1),
    training=TrainingConfig(
        steps=20, log_every_steps=2, evaluate_every_steps=6, checkpoint_every_steps=4, keep_last=2, seed=3
    ),
)


class BagEncoder(nnx.Module):
    """Stands in for DualEncoder where only the training around it is tested: compiles several times faster.

    The mean of token embeddings, one feed-forward layer whose parameters are named as a tower's, dropout by key.
    """

    def __init__(self, config: Config, *, seed: int):
        rngs, width = nnx.Rngs(seed), config.encoder.width
        self.dropout = config.encoder.dropout
        self.token_embedding = nnx.Embed(config.encoder.vocabulary_size, width, rngs=rngs)
        self.feed_forward = nnx.Dict(up=nnx.Linear(width, width, rngs=rngs), down=nnx.Linear(width, width, rngs=rngs))
        self.log_inverse_temperature = nnx.Param(-jnp.log(jnp.float32(config.loss.initial_temperature)))

    def encode_rows(self, tokens, segments, *, tower, dropout_key=None, flash=None):
        members = segments[:, None, :] == jnp.arange(segments_per_row(tokens.shape[1]))[None, :, None]
        states = members.astype(jnp.float32) @ self.token_embedding(jnp.maximum(tokens, 0))
        states /= jnp.maximum(members.sum(axis=2), 1)[:, :, None]
        if dropout_key is not None:
            kept = jax.random.bernoulli(dropout_key, 1 - self.dropout, states.shape)
            states = jnp.where(kept, states / (1 - self.dropout), 0)
        states += self.feed_forward["down"](jax.nn.relu(self.feed_forward["up"](states)))
        return states * jax.lax.rsqrt((states**2).sum(axis=2, keepdims=True) + 1e-12)

    def encode_packed(self, texts, *, tower, micro_batches=1, dropout_key=None, flash=None):
        groups, _, width = texts.tokens.shape
        rows = (array.reshape(-1, width) for array in texts[:2])
        vectors = self.encode_rows(*rows, tower=tower, dropout_key=dropout_key)
        vectors = vectors.reshape(groups, -1, vectors.shape[-1])
        chosen = jnp.take_along_axis(vectors, jnp.maximum(texts.places, 0)[:, :, None], axis=1)
        return jnp.where((texts.places >= 0)[:, :, None], chosen, 0)


def state_of(model: nnx.Module, config: Config, *, steps: int, mesh: Mesh) -> TrainState:
    """Step 0 of the parameters that a model has."""
    parameters = place_parameters(model, nnx.to_pure_dict(nnx.state(model, nnx.Param)), mesh)
    return initial_state(parameters, config, steps=steps, mesh=mesh)


def use_bag_encoder(patch: pytest.MonkeyPatch) -> None:
    """Makes crops_jax.training train a BagEncoder."""

    def parameters(config: Config, *, seed: int, mesh: Mesh) -> dict:
        made = nnx.to_pure_dict(nnx.state(BagEncoder(config, seed=seed)))
        return place_parameters(abstract(config), made, mesh)

    def abstract(config: Config) -> BagEncoder:
        return nnx.eval_shape(lambda: BagEncoder(config, seed=0))

    patch.setattr(dual_encoder, "abstract_dual_encoder", abstract)
    patch.setattr(dual_encoder, "initial_parameters", parameters)


def without_times(line: dict) -> dict:
    """A line of metrics.jsonl, or an outcome of launch.train, without what the clock decides."""
    return {name: value for name, value in line.items() if name not in (*TIMING_FIELDS, "compilation_seconds")}


def tiny_records(
    path: Path,
    *,
    queries: int = 28,
    dev: int = 6,
    seed: int = 0,
    words: int = VOCABULARY - 8,
    scored: bool = False,
    all_documents: bool = False,
) -> Path:
    """A folder of records, complete with tokenizer and manifest. A query shares words with its positives.

    scored: whether the documents with text have scores, which fall from the first to the last of a query.
    all_documents: whether there is a split of all documents, in the order of their numbers.
    """
    random = np.random.default_rng(seed)
    documents = [random.integers(5, VOCABULARY, random.integers(4, 15)).astype(np.int32) for _ in range(2 * queries)]
    ids = document_id_words(f"d{i}" for i in range(len(documents)))

    def record(query: int) -> QueryRecord:
        positive = documents[2 * query]
        others = random.choice(len(documents), 3, replace=False)
        labelled = list(dict.fromkeys([2 * query, 2 * query + 1, *others.tolist()]))
        levels = np.array(
            [Level.QUERY_LEVEL_POSITIVE, Level.SHOWN_NOT_CLICKED, Level.POSITIVE, Level.RANKED_NOT_SHOWN, 1], np.int32
        )[: len(labelled)]
        with_text = labelled[: int(random.integers(1, 4))]
        scores = np.where(np.arange(5) < len(with_text), np.linspace(0.9, 0.1, 5), np.nan).astype(np.float32)
        return QueryRecord(
            query_tokens=np.concatenate([random.choice(positive, 3), [2]]).astype(np.int32),
            document_ids=ids[with_text],
            document_levels=levels[: len(with_text)],
            document_tokens=tuple(documents[i] for i in with_text),
            labelled_ids=ids[labelled],
            labelled_levels=levels,
            labelled_scores=scores[: len(labelled)] if scored else None,
        )

    none, zero, everyone = np.zeros(0, np.int32), np.zeros(1, np.int32), range(len(documents))
    with artifacts.output_directory(
        path, overwrite=False, program="data.write_records", kind="records", arguments={"seed": seed}, inputs={}
    ) as out:
        write_records(out, [record(i) for i in range(dev, queries)], num_shards=2)
        if dev:
            write_records(out, [record(i) for i in range(dev)], num_shards=1, split="dev")
        if all_documents:
            each = [
                QueryRecord(none, ids[i : i + 1], zero, (documents[i],), none.reshape(0, 2), none) for i in everyone
            ]
            write_records(out, each, num_shards=3, split=ALL_DOCUMENTS)
        backend = tokenizers.Tokenizer(
            models.WordPiece(
                {"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "[CLS]": 3, "[MASK]": 4, **{f"w{i}": 5 + i for i in range(words)}},
                unk_token="[UNK]",
            )
        )
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(backend, out / "tokenizer")
    return path


def elastic_configuration(*, steps: int, evaluate_every_steps: int, checkpoint_every_steps: int) -> str:
    """The text of a configuration that any number of processes trains, and that logs every step."""
    return f"""
from tests.tiny_run import CONFIG as TINY

CONFIG = TINY.replace(
    mesh={{"data": -1}},
    training={{
        "steps": {steps},
        "log_every_steps": 1,
        "evaluate_every_steps": {evaluate_every_steps},
        "checkpoint_every_steps": {checkpoint_every_steps},
    }},
)
"""
