"""SimANS (Zhou et al., EMNLP 2022, arXiv 2210.11773) and TriSampler (Yang et al., WWW 2024, arXiv 2402.11855).

Both are InfoNCE with one positive and drawn hard negatives of each query; `--negatives.sampler` names the sampler, so
that the two systems differ in nothing else.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "infonce"}, "data": {"positives_per_query": 1}}
NEGATIVES = {"warmup_steps": 500, "refresh_every_steps": 500, "sampler": "simans"}

CONFIG = TINY.replace(**CHANGES, negatives=NEGATIVES)
