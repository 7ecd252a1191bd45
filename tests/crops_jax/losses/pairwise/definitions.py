"""The pairwise losses from their definitions, in float64 and plain loops over the pairs of one query."""

import math

PAIRWISE = ("ranknet", "lambda_mrr", "lambda_ndcg", "pairwise_log", "binary_nce")


def pair_terms(name, scores, levels, temperature, log_probabilities, rank_scores) -> list[tuple[float, int]]:
    """(loss, level) of each term of one query; levels -1 are out. rank_scores: those that ranks are by."""
    columns = [j for j in range(len(levels)) if levels[j] >= 0]
    if name == "binary_nce":
        return _binary_nce(scores, levels, temperature, log_probabilities, columns)
    positives_only = name == "pairwise_log"
    terms = []
    for a in columns:
        for b in columns:
            is_pair = levels[a] >= 4 > levels[b] if positives_only else levels[a] > levels[b]
            if is_pair:
                loss = _softplus((scores[b] - scores[a]) / temperature)
                terms.append((_weight(name, rank_scores, levels, columns, a, b) * loss, levels[a]))
    return terms


def ranks(scores, levels, columns) -> dict[int, int]:
    """The rank of each column, from 1; of equal scores the lower level comes first."""
    order = sorted(columns, key=lambda j: (-scores[j], levels[j], j))
    return {column: place for place, column in enumerate(order, start=1)}


def _weight(name, rank_scores, levels, columns, a, b) -> float:
    if not name.startswith("lambda"):
        return 1.0
    rank = ranks(rank_scores, levels, columns)
    if name == "lambda_mrr":
        return abs(1 / rank[a] - 1 / rank[b])
    gains = sorted((2.0 ** levels[j] - 1 for j in columns), reverse=True)
    best = sum(gain / math.log2(1 + place) for place, gain in enumerate(gains, start=1))
    gain = abs(2.0 ** levels[a] - 2.0 ** levels[b])
    return gain * abs(1 / math.log2(1 + rank[a]) - 1 / math.log2(1 + rank[b])) / best


def _binary_nce(scores, levels, temperature, log_probabilities, columns) -> list[tuple[float, int]]:
    negatives = [j for j in columns if levels[j] < 4]
    if not negatives:
        return []

    def logit(j):
        expected = math.log(len(negatives)) if log_probabilities is None else float(log_probabilities[j])
        return scores[j] / temperature - expected

    noise = sum(_softplus(logit(k)) for k in negatives)
    return [(_softplus(-logit(p)) + noise, levels[p]) for p in columns if levels[p] >= 4]


def _softplus(x) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
