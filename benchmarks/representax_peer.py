"""What benchmarks/training.py and embedding.py measure of representax, the other JAX project that trains retrievers.

This module is loaded by the Python of .venv-representax (`make representax`), which has an environment of its own,
because representax needs other versions of transformers and JAX than crops_jax.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

LENGTH_STEP = 16
"""Texts are padded to the next multiple of so many tokens. Its own measurements found finer lengths faster."""
TEXTS_PER_BATCH = 32
"""The default of sentence-transformers and of representax."""


def loaded(weights: str, *, max_tokens: int) -> tuple[Any, Any]:
    """Returns the encoder in a folder, in float32, and the processor that makes its batches."""
    from representax.integrations.sentence_transformers import (
        SentenceBatch,
        load_sentence_transformer_artifact,
        make_text_processor,
    )
    from transformers import AutoTokenizer

    artifact = load_sentence_transformer_artifact(weights, local_files_only=True)
    processor = make_text_processor(
        tokenizer=AutoTokenizer.from_pretrained(artifact.processor_path, local_files_only=True),
        batch_builder=type(artifact.encoder.backbone).make_batch,
        max_sequence_length=max_tokens,
        sequence_length_buckets=range(LENGTH_STEP, max_tokens + 1, LENGTH_STEP),
        prompts=artifact.prompts,
        default_prompt_name=artifact.default_prompt_name,
        include_prompt=artifact.encoder.pooling.include_prompt,
        pooling_batch_builder=SentenceBatch,
    )
    return artifact.encoder, processor


def embedding(texts: Sequence[str], weights: str, *, max_tokens: int) -> Callable[[], dict[str, Any]]:
    """Returns the work of one turn: the embedding of all texts, sorted by length as sentence-transformers does it."""
    import numpy as np
    from representax.inference import TextEmbeddingModel

    encoder, processor = loaded(weights, max_tokens=max_tokens)
    model = TextEmbeddingModel(model=encoder, processor=processor)

    def work() -> dict[str, Any]:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors = model.embed([texts[number] for number in order], batch_size=TEXTS_PER_BATCH)
        return {"some": vectors[np.argsort(order)][:50].tolist()}

    return work


def training(
    pairs: Sequence[tuple[str, str]], weights: str, *, batch: int, steps: int, max_tokens: int
) -> Callable[[], dict[str, Any]]:
    """Returns the work of one turn: steps of its multiple negatives ranking loss with AdamW, without dropout.

    As for the other systems, token ids are computed before, and so are the programs of each pair of lengths.
    """
    import jax
    import jax.numpy as jnp
    import optax
    from representax.tasks import build_task
    from representax.tasks.retrieval import MNRConfig, RetrievalCollator, RetrievalConfig
    from representax.train import build_train_step, init_train_state

    encoder, processor = loaded(weights, max_tokens=max_tokens)
    collate = RetrievalCollator(processor=processor, document_field="document")
    examples = [{"query": query, "document": document} for query, document in pairs]
    batches = [collate(examples[first : first + batch]) for first in range(0, len(examples) - batch + 1, batch)]
    optimizer = optax.adamw(2e-5, weight_decay=1e-4)
    state = init_train_state(encoder, optimizer)
    step = build_train_step(build_task(RetrievalConfig(), MNRConfig(scale=20.0)), optimizer, donate_state=True)

    def copied(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, tree)

    for one in {str(jax.tree.map(jnp.shape, one)): one for one in batches}.values():
        jax.block_until_ready(step(copied(state), one).metrics)
    feed = itertools.cycle(batches)

    def work() -> dict[str, Any]:
        nonlocal state
        for _ in range(steps):
            result = step(state, next(feed))
            jax.block_until_ready(result.metrics)
            state = result.state
        jax.block_until_ready(state)
        return {"loss": float(result.metrics.loss)}

    return work
