"""The configurations of the comparison on real data: one base for every system, and one budget of documents."""

import math

from configs.minilm import CONFIG as MINILM
from crops_jax.config import Config
from launch.comparison.cells import Cell
from launch.comparison.configurations import NO_LEARNING, measured_at_the_end
from launch.comparison.real.settings import RealSet
from launch.comparison.real.systems import PEER

_DEV_DOCUMENTS = 10_000
"""The number of training documents among which the dev queries also search. The dev records of SciFact hold so few
documents that every encoder finds all positives."""


def base_config(settings: RealSet, weights: str) -> Config:
    """Returns the configuration that every system starts from.

    A query and a document have the same token limit, because sentence-transformers has one limit for both.
    """
    limits = {"max_query_tokens": settings.max_tokens, "max_document_tokens": settings.max_tokens}
    return MINILM.replace(
        encoder={"weights": weights, **limits},
        optimizer={"learning_rate": settings.learning_rate},
        training={"dev_documents": _DEV_DOCUMENTS},
    )


def documents_to_present(settings: RealSet, *, pairs: int, steps: int) -> int:
    """Returns the number of documents that training presents to every system.

    Args:
      settings: the number of epochs and the batch of the systems that learn from pairs.
      pairs: the number of training pairs.
      steps: the number of steps of the systems that learn from pairs; 0: the epochs decide.
    """
    return steps * settings.batch if steps else math.ceil(settings.epochs * pairs)


def real_config(cell: Cell, base: Config, *, documents: int, factor: float) -> Config:
    """Returns the configuration of a cell.

    A system whose batch has more documents takes fewer steps, so that all are presented the same number of documents.
    The dev split is evaluated once, after the last step, as for sentence-transformers: it chooses the learning rate
    and no checkpoint. The cell of sentence-transformers takes one step that changes no weight, after which its dev
    recall is measured.

    Args:
      cell: the system and the seed.
      base: the result of `base_config`.
      documents: the result of `documents_to_present`.
      factor: the learning rate as a multiple of that of the base.
    """
    config = base.replace(**cell.system.config)
    if not cell.system.trained or cell.system.name == PEER:
        return config.replace(optimizer=NO_LEARNING, training=measured_at_the_end(1) | {"seed": cell.seed})
    steps = math.ceil(documents / (config.data.queries_per_batch * config.data.documents_per_query))
    training = measured_at_the_end(steps) | {
        "log_every_steps": min(base.training.log_every_steps, steps),
        "seed": cell.seed,
    }
    return config.replace(optimizer={"learning_rate": base.optimizer.learning_rate * factor}, training=training)
