"""ADORE (Zhan et al., SIGIR 2021, arXiv 2104.08051): only the query tower learns, on its own first 200 documents.

The documents are frozen (`launch.train --document-embeddings`), so that the towers do not share weights. LambdaLoss
weighs a pair by the change of the reciprocal rank; `--loss.name lambda_ndcg` is the variant with NDCG.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {
    "encoder": {"shared_towers": False},
    "loss": {"name": "lambda_mrr", "corpus_top": 200},
    "data": {"documents_per_query": 1},
}

CONFIG = TINY.replace(**CHANGES)
