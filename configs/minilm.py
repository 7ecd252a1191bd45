"""MiniLM-L6 and other small BERT-family encoders; --encoder.weights names the folder (or hub name) to start from."""

from configs.base import CONFIG as BASE

CONFIG = BASE.replace(
    encoder={"max_query_tokens": 32, "max_document_tokens": 128},
    data={"queries_per_batch": 32},
    training={"epochs": 2.0, "evaluate_every_steps": 50},
)
