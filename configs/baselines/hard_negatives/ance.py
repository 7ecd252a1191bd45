"""ANCE (Xiong et al., ICLR 2021, arXiv 2007.00808): pairwise log loss with negatives that are mined again and again.

The documents of a query in a batch are one positive and negatives that are drawn from the first 200 documents of the
latest refresh. Before the first one, the negatives are those of the records, by BM25.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "pairwise_log"}, "data": {"positives_per_query": 1}}
NEGATIVES = {"warmup_steps": 500, "refresh_every_steps": 500}

CONFIG = TINY.replace(**CHANGES, negatives=NEGATIVES)
