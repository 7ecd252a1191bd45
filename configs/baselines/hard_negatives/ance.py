"""ANCE (Xiong et al., ICLR 2021, arXiv 2007.00808): pairwise log loss with negatives that are mined again and again.

The documents of a query in a batch are one positive and negatives that are drawn from the first 200 documents of the
latest refresh.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "pairwise_log"}, "data": {"positives_per_query": 1}}

CONFIG = TINY.replace(**CHANGES)
