"""Every loss from its definition, in float64 and plain loops over pairs; derivatives by central differences."""

import numpy as np

from tests.crops_jax.losses.pairwise.definitions import PAIRWISE, pair_terms


def reference(
    name,
    scores,
    matrix,
    temperatures,
    *,
    weights=None,
    mask=None,
    log_probabilities=None,
    margin=None,
    level_weights=(1, 1, 1, 1, 1),
    normalization="anchors",
    form="out",
    rank_scores=None,
) -> float:
    """The loss of scores [queries, docs] and levels [queries, docs]. rank_scores: those that ranks are by, or None."""
    queries, docs = matrix.shape
    weights = np.ones(queries) if weights is None else np.float64(weights)
    log_p = np.zeros(docs) if log_probabilities is None else log_probabilities
    real = np.ones(docs, bool) if mask is None else mask
    rows = []
    for row in range(queries):
        levels = np.where(real, matrix[row], -1)
        if margin is not None and (levels >= 4).any():
            best = scores[row][levels >= 4].max()
            levels = np.where((levels == 0) & (scores[row] >= best - margin), -1, levels)
        if name in PAIRWISE:
            ranked = (scores if rank_scores is None else rank_scores)[row]
            terms = pair_terms(name, scores[row], levels, float(temperatures), log_probabilities, ranked)
        else:
            terms = _terms(name, scores[row], levels, np.atleast_1d(temperatures), log_p, form)
        rows.append((weights[row], terms))
    by_level = (1, *level_weights)
    if normalization == "queries":
        means = [
            (weight, np.average([loss for loss, _ in terms], weights=[by_level[level] for _, level in terms]))
            for weight, terms in rows
            if any(by_level[level] for _, level in terms)
        ]
        total, count = sum(w * mean for w, mean in means), sum(w for w, _ in means)
    else:
        total = sum(weight * by_level[level] * loss for weight, terms in rows for loss, level in terms)
        count = sum(weight * by_level[level] for weight, terms in rows for _, level in terms)
    if normalization == "sum":
        return float(total)
    return total / count if count else 0.0


def differences(loss, *arrays, step=1e-6):
    """Derivatives of loss(*arrays) by central differences."""
    gradients = []
    for which, array in enumerate(arrays):
        gradient = np.zeros_like(array, np.float64)
        for place in np.ndindex(np.shape(array)):
            moved = np.zeros_like(array, np.float64)
            moved[place] = step
            up, down = ([*arrays[:which], array + sign * moved, *arrays[which + 1 :]] for sign in (1, -1))
            gradient[place] = (loss(*up) - loss(*down)) / (2 * step)
        gradients.append(gradient)
    return gradients


def _terms(name, scores, levels, temperatures, log_p, form) -> list[tuple[float, int]]:
    """(loss, level) of each term of one query; levels -1 are out."""

    def z(j, t):
        return scores[j] / t - (log_p[j] if levels[j] == 0 else 0.0)

    def contrast(chosen, against):
        return _logsumexp([chosen, *against]) - chosen

    columns = range(len(levels))
    t = temperatures[0]
    if name == "softmax_cross_entropy":
        total = sum(max(level, 0) for level in levels)
        log_all = _logsumexp([z(j, t) for j in columns if levels[j] >= 0]) if total else 0.0
        loss = sum(levels[j] / total * (log_all - z(j, t)) for j in columns if levels[j] > 0)
        return [(loss, levels.max())] if total else []
    if name in ("infonce", "multi_positive_infonce"):
        against = [z(j, t) for j in columns if 0 <= levels[j] < 4]
        positives = [j for j in columns if levels[j] >= 4]
        if name == "infonce" and positives:
            positives = [int(np.argmax(levels))]
        return [(contrast(z(j, t), against), levels[j]) for j in positives if against]
    terms = []
    present = sorted({level for level in levels if level >= 1}, reverse=True)
    for level in present:
        t = temperatures[level - 1] if name == "rince" else temperatures[0]
        against = [z(j, t) for j in columns if 0 <= levels[j] < level]
        chosen = [z(j, t) for j in columns if levels[j] == level]
        if not against:
            continue
        if name == "rince" and (form == "in" or (form == "out_in" and level != present[0])):
            terms.append((contrast(_logsumexp(chosen), against), level))
        else:
            terms += [(contrast(one, against), level) for one in chosen]
    return terms


def _logsumexp(values) -> float:
    greatest = max(values)
    return greatest + np.log(sum(np.exp(value - greatest) for value in values))
