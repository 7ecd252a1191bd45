"""The paper's second encoder in a small size: hashed IDs of tokens, of pairs of neighbouring tokens and of whole texts.

Its batches and the length of its training are those of tiny_cpu.
"""

from configs.tiny_cpu import CONFIG as TINY

CONFIG = TINY.replace(
    encoder={
        "family": "hashed",
        "hash_buckets": 1 << 14,
        "feature_width": 32,
        "layers": 1,
        "feed_forward_width": 128,
        "width": 64,
    },
    # A row of a table learns only from the few texts that have its ID.
    optimizer={"learning_rate": 1e-2},
)
