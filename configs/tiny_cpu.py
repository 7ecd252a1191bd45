"""A small BERT tower that is trained from scratch, for `make demo` and for tests on two CPU cores."""

from configs.base import CONFIG as BASE

CONFIG = BASE.replace(
    encoder={
        "vocabulary_size": 4096,
        "width": 128,
        "layers": 2,
        "heads": 4,
        "feed_forward_width": 256,
        "max_positions": 64,
        "max_query_tokens": 16,
        "max_document_tokens": 32,
    },
    optimizer={"learning_rate": 1e-3},
    data={"documents_per_query": 3},
    training={"epochs": 15.0},
)
