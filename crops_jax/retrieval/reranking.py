"""Reranking: the first documents of a ranked list in the order of the scores of a slower model."""

import numpy as np
from jaxtyping import Float32

from crops_jax.retrieval.fusion import RankedLists


def reranked(lists: RankedLists, scores: Float32[np.ndarray, "queries reranked"]) -> RankedLists:
    """Returns the lists with their first documents in the order of new scores, and the others unchanged below them.

    Args:
      lists: scores and indices [queries, depth], best first; index -1 is padding at the end of a row.
      scores: the new scores of the first documents of each list. Those of padding are not read. Documents with equal
        scores keep the order of the list.

    Returns:
      scores float32 and indices int32 [queries, depth]. The first scores are the new ones and the others those of the
      lists, so the two parts of a row cannot be compared by score.

    Raises:
      ValueError: there are more new scores than documents, or one of a document is not a number.
    """
    old_scores, indices = lists
    count = scores.shape[1]
    if scores.shape[0] != indices.shape[0] or count > indices.shape[1]:
        raise ValueError(f"scores of shape {scores.shape} are not those of lists of shape {indices.shape}")
    held = indices[:, :count] >= 0
    if np.isnan(scores[held]).any():
        raise ValueError("a document cannot be ranked by a score that is not a number")
    order = np.argsort(np.where(held, -scores, np.inf), axis=1, kind="stable")
    new_scores, new_indices = old_scores.astype(np.float32), indices.astype(np.int32)
    new_indices[:, :count] = np.take_along_axis(new_indices[:, :count], order, axis=1)
    new_scores[:, :count] = np.take_along_axis(np.where(held, scores, np.float32(0)), order, axis=1)
    return new_scores, new_indices
