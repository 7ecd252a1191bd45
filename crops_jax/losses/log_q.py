"""The probability that a batch contains a document, estimated during training for the logQ correction.

The method is algorithm 2 of Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations"
(RecSys 2019). It keeps, for each document, a moving average of the number of steps between two batches that contain the
document. The inverse of this interval estimates the probability that a batch contains the document.

The state is two arrays of hash buckets. It is a function of the batches seen so far, so that a resumed run continues
exactly. Documents that share a bucket share an estimate, which is too high for each of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


class DocumentIntervals(NamedTuple):
    """The state of each bucket.

    last_step: the newest step, counted from 1, whose batch contained a document of the bucket; 0 if no batch did.
    interval: the average interval between two such batches, in steps.
    """

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
    """Returns the estimates after the batch of a step, and the estimates for the documents of this batch.

    The first interval of a document is the number of steps since the beginning of training, because nothing else is
    known about the document. (The paper starts from 0, which would treat the document as a frequent one.) Afterwards
    interval = (1 - decay) interval + decay (step - last_step).

    Args:
      intervals: the state before the step.
      document_ids: the ids of the batch's documents, two words each.
      doc_mask: True for the first copy of each real document.
      step: the number of the step, counted from 1.
      decay: the weight of the newest interval, in (0, 1].

    Returns:
      The new state; the log of the probability that a batch contains the document, at most 0, and exactly 0 for columns
      whose doc_mask is False; and the number of documents that occurred for the first time.
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
    # The words are halves of a cryptographic hash, so any mixture of them is distributed evenly.
    words = jax.lax.bitcast_convert_type(document_ids, jnp.uint32)
    return ((words[:, 0] ^ (words[:, 1] * jnp.uint32(0x9E3779B1))) % jnp.uint32(buckets)).astype(jnp.int32)
