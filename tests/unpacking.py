"""Packed texts taken apart again, token by token, for tests."""

import numpy as np

from crops_jax.text.packing import PackedTexts, segments_per_row


def unpacked(packed: PackedTexts) -> list[list[list[int]]]:
    """The tokens of each text of each group; [] for a text that is not there."""
    most = segments_per_row(packed.tokens.shape[2])
    groups = []
    for tokens, segments, places in zip(*map(np.asarray, packed)):
        texts = []
        for place in places.tolist():
            row, segment = divmod(place, most)
            texts.append(tokens[row][segments[row] == segment].tolist() if place >= 0 else [])
        groups.append(texts)
    return groups
