"""Full Stage Learning to Rank (Zheng et al., WWW 2024, arXiv 2405.04844): LambdaLoss over the stages of the log.

The targets are the levels of the search log: clicked > shown > ranked > filtered > another query's document. Labels:
those of the search log alone.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "lambda_ndcg"}}

CONFIG = TINY.replace(**CHANGES)
