"""The experiment on web search sessions with result lists and few clicks.

Documents are short snippets, batches are small, and whole topics are held out.

python -m data.convert --source trec_session --input RAW --output LOGS
python -m launch.pipeline trec_session --encoder.weights FOLDER --logs LOGS --fraction 0.25 --by group --output WORK
"""

from configs.minilm import CONFIG as MINILM

CONFIG = MINILM.replace(
    encoder={"max_document_tokens": 64},
    data={"queries_per_batch": 16},
    training={"epochs": 3.0, "evaluate_every_steps": 10},
)
