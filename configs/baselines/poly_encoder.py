"""A Poly-encoder with 64 codes (Humeau et al., ICLR 2020, arXiv 1905.01969) under H-InfoNCE, which reranks.

The paper also has 16 and 360 codes: --encoder.query-codes 16. Labels: those of all perspectives.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"encoder": {"query_codes": 64}}

CONFIG = TINY.replace(**CHANGES)
