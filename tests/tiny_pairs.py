"""Pairs with a relation that a small cross-encoder learns in seconds, and a configuration of one layer."""

from pathlib import Path

import numpy as np
from flax import nnx

from crops_jax.config import CrossEncoderConfig, EncoderConfig, MeshConfig, OptimizerConfig, PairsConfig, TrainingConfig
from crops_jax.models.cross_encoder import CrossEncoder
from tests.model_folders import VOCABULARY, write_tokenizer

CONFIG = CrossEncoderConfig(
    encoder=EncoderConfig(
        vocabulary_size=len(VOCABULARY),
        width=16,
        layers=1,
        heads=2,
        feed_forward_width=32,
        max_positions=24,
        max_query_tokens=8,
        max_document_tokens=8,
    ),
    pairs=PairsConfig(pairs_per_batch=16, max_tokens=8),
    optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=1e-3),
    mesh=MeshConfig(data=1),
    training=TrainingConfig(
        steps=120, log_every_steps=10, evaluate_every_steps=0, checkpoint_every_steps=20, keep_last=2, seed=3
    ),
)


def toy_pairs(count: int = 240, *, seed: int = 0) -> tuple[list[str], list[str], np.ndarray]:
    """Queries, documents and targets: 1 for red documents, .5 for blue ones, whatever words they share with a query."""
    generator = np.random.default_rng(seed)
    queries, documents, targets = [], [], []
    for number in range(count):
        colour = int(generator.integers(0, 3))
        others = " ".join("garden" if generator.random() < 0.5 else "hose" for _ in range(generator.integers(1, 3)))
        queries.append(f"{chr(ord('a') + number % 26)} {number % 10}")
        documents.append(f"{others} {('red', 'blue', 'lamp')[colour]}")
        targets.append((1.0, 0.5, 0.0)[colour])
    return queries, documents, np.array(targets)


def tiny_cross_encoder(config: CrossEncoderConfig = CONFIG, *, seed: int = 0) -> CrossEncoder:
    return CrossEncoder(config.encoder, rngs=nnx.Rngs(params=seed))


def tiny_tokenizer(folder: Path) -> Path:
    write_tokenizer(folder)
    return folder
