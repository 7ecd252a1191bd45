"""Full Stage Learning to Rank with RankNet: all pairs of different stages count alike.

Labels: those of the search log alone, as for configs.baselines.fs_lr_lambda.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "ranknet"}}

CONFIG = TINY.replace(**CHANGES)
