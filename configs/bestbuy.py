"""Clicks on a small catalogue, without result lists: few positives a query, so larger batches with one each.

64 tokens hold the name and the start of the description, at half the time of 128 on a CPU.

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
