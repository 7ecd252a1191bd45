"""The experiment on clicks in a small catalogue, without result lists. A query has few positives, so a batch holds more
queries, with one document each.

64 tokens hold the name of a product and the start of its description. On a CPU they take half the time of 128 tokens.

python -m data.convert --source bestbuy --input RAW --output LOGS
python -m launch.pipeline bestbuy --encoder.weights FOLDER --logs LOGS --from 2011-10-10T17:33 --output WORK
"""

from configs.minilm import CONFIG as MINILM

CONFIG = MINILM.replace(
    encoder={"max_query_tokens": 16, "max_document_tokens": 64},
    data={"queries_per_batch": 64, "documents_per_query": 1},
    optimizer={"learning_rate": 5e-5},
    training={"epochs": 3.0, "evaluate_every_steps": 25},
)
