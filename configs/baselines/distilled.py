"""CroPS with distillation: H-InfoNCE, and the KL divergence from the discriminator's order of a query's documents.

The form is that of Hinton et al. (2015, arXiv 1503.02531) and TCT-ColBERT (arXiv 2010.11386). The weight and the
temperature are 1, before any result was seen. Labels: those of all perspectives. The records need the scores of
data.write_records --discriminator.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"distillation": "kl"}}

CONFIG = TINY.replace(**CHANGES)
