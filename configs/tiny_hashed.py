"""The paper's second encoder, small: hashed IDs of tokens, pairs and texts, on the data of tiny_cpu and its cadence."""

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
    # A row of a table learns from the few texts that have its ID.
    optimizer={"learning_rate": 1e-2},
)
