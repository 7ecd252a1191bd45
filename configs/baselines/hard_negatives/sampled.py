"""SimANS (Zhou et al., EMNLP 2022, arXiv 2210.11773) and TriSampler (Yang et al., WWW 2024, arXiv 2402.11855).

Both are InfoNCE with one positive and drawn hard negatives of each query; `launch.mine_negatives --sampling` names the
sampler, so that the two systems differ in nothing else.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "infonce"}, "data": {"positives_per_query": 1}}

CONFIG = TINY.replace(**CHANGES)
