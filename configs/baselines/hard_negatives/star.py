"""STAR (Zhan et al., SIGIR 2021, arXiv 2104.08051): pairwise log loss with one static hard negative of each query.

The hard negatives come from the first 200 documents of a warm-up model, the same run after 500 steps. All documents of
a batch are shared by its queries, and the known positives of a query are never its negatives.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "pairwise_log"}, "data": {"documents_per_query": 2, "positives_per_query": 1}}
NEGATIVES = {"warmup_steps": 500, "refresh_every_steps": 1_000_000}
"""One refresh: the next one would follow a million steps later."""

CONFIG = TINY.replace(**CHANGES, negatives=NEGATIVES)
