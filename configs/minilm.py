"""The configuration for MiniLM-L6 and other small encoders of the BERT family.

`--encoder.weights` gives the folder (or hub name) of the weights to start from.
"""

from configs.base import CONFIG as BASE

CONFIG = BASE.replace(
    encoder={"max_query_tokens": 32, "max_document_tokens": 128},
    data={"queries_per_batch": 32},
    training={"epochs": 2.0, "evaluate_every_steps": 50},
)
