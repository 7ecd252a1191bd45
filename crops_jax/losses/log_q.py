"""The frequency with which documents enter a batch, estimated in training: the probabilities of logQ correction.

Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations" (RecSys 2019), algorithm 2:
for each document, a moving average of the steps between two batches that hold it; its inverse estimates the
probability that a batch holds it. The state is two arrays of hash buckets, a function of the batches seen, so that a
resumed run goes on exactly. Documents that share a bucket share an estimate, too high for both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


class DocumentIntervals(NamedTuple):
    """The state of each bucket. last_step: the newest step, from 1, with it, or 0; interval: in steps."""

    last_step: Int32[Array, "buckets"]
    interval: Float[Array, "buckets"]


def no_intervals(buckets: int) -> DocumentIntervals:
    """Returns the state before the first batch."""
    return DocumentIntervals(jnp.zeros(buckets, jnp.int32), jnp.zeros(buckets, jnp.float32))


def observe(
    intervals: DocumentIntervals,
    document_ids: Int32[Array, "documents 2"],
    doc_mask: Bool[Array, "documents"],
    step: Int32[Array, ""],
    *,
    decay: float,
) -> tuple[DocumentIntervals, Float[Array, "documents"], Int32[Array, ""]]:
    """The estimates after the batch of a step, and those of its own documents.

    A document that is met for the first time gets the steps since the beginning for an interval, all that is known of
    it (the paper starts from 0, which would take it for a frequent one). Afterwards
    interval = (1 - decay) interval + decay (step - last_step).

    Args:
      document_ids: two words each.
      doc_mask: True for the first copy of each real document.
      step: from 1.
      decay: weight of the newest interval, in (0, 1].

    Returns:
      The new state; log of the probability that a batch holds the document, at most 0, and 0 where doc_mask is
      False; and the number of documents met for the first time.
    """
    bucket = _bucket(document_ids, intervals.last_step.shape[0])
    last, old = intervals.last_step[bucket], intervals.interval[bucket]
    gap = (step - last).astype(jnp.float32)
    new = jnp.maximum(jnp.where(last == 0, gap, (1 - decay) * old + decay * gap), 1.0)
    # All documents of a bucket write the same values, so the order of the writes does not matter.
    target = jnp.where(doc_mask, bucket, intervals.last_step.shape[0])
    updated = DocumentIntervals(
        intervals.last_step.at[target].set(step, mode="drop"), intervals.interval.at[target].set(new, mode="drop")
    )
    first_seen = (doc_mask & (last == 0)).sum(dtype=jnp.int32)
    return updated, jnp.where(doc_mask, -jnp.log(new), 0.0), first_seen


def _bucket(document_ids: Int32[Array, "documents 2"], buckets: int) -> Int32[Array, "documents"]:
    # The words are halves of a cryptographic hash: any mixture of them is spread evenly.
    words = jax.lax.bitcast_convert_type(document_ids, jnp.uint32)
    return ((words[:, 0] ^ (words[:, 1] * jnp.uint32(0x9E3779B1))) % jnp.uint32(buckets)).astype(jnp.int32)
