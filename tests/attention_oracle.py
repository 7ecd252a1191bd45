"""Attention with rotary positions from its definition, in NumPy, text by text and token by token."""

import numpy as np


def turned(vector, position, base):
    """One head's vector, whose components i and i + width / 2 are rotated as a pair (Su et al. 2021)."""
    half = len(vector) // 2
    angle = position * base ** (-2 * np.arange(half) / len(vector))
    a, b = vector[:half], vector[half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])


def rotary_attention(query, key, value, *, base, window=None, divisor=None):
    """query: [heads, tokens, width]; key and value: [groups, tokens, width]. Returns [tokens, heads * width].

    window: the number of positions on each side that a token sees; None: all.
    """
    heads, tokens, width = query.shape
    mixed = np.zeros((tokens, heads, width))
    for head in range(heads):
        group = head // (heads // len(key))
        q, k = (np.stack([turned(row, at, base) for at, row in enumerate(x)]) for x in (query[head], key[group]))
        for at in range(tokens):
            seen = [other for other in range(tokens) if window is None or abs(other - at) <= window]
            logits = k[seen] @ q[at] / (divisor or np.sqrt(width))
            weights = np.exp(logits - logits.max())
            mixed[at, head] = weights / weights.sum() @ value[group][seen]
    return mixed.reshape(tokens, -1)


def by_head(states, heads):
    """[tokens, heads * width] as [heads, tokens, width]."""
    return np.stack(np.split(states, heads, axis=-1))
