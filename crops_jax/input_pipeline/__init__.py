"""Turns records into global batches, in an order that is a function of seed and step only."""

from crops_jax.input_pipeline.batch_reader import Batch
from crops_jax.input_pipeline.global_batches import batches, describe_batch, records_of_step

__all__ = [
    "Batch",
    "batches",
    "describe_batch",
    "records_of_step",
]
