"""CroPS with distillation of margins: H-InfoNCE, and the squared error of the discriminator's margins.

The form is that of Hofstaetter et al. (2020, arXiv 2010.02666). The weight and the temperature are 1, before any result
was seen. Labels and records are those of configs.baselines.distilled.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"distillation": "margin_mse"}}

CONFIG = TINY.replace(**CHANGES)
