"""In-batch sampled softmax: each query's positive against the positives of the other queries of the batch.

A query brings one document, a positive where its record has one, so that no hard negative of its own is in the batch.
`--loss.name binary_nce` is the binary form. Labels: those of the search log alone.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "infonce"}, "data": {"documents_per_query": 1}}

CONFIG = TINY.replace(**CHANGES)
