"""DPR (Karpukhin et al., EMNLP 2020, arXiv 2004.04906): in-batch softmax with one BM25 hard negative of each query.

The hard negatives of all queries are negatives of each query of the batch.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "infonce"}, "data": {"documents_per_query": 2, "positives_per_query": 1}}

CONFIG = TINY.replace(**CHANGES)
