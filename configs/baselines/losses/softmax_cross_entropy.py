"""Softmax cross-entropy over all documents of a batch, with the levels as gains (ListNet's top-one form).

Labels: those of all perspectives. Its terms belong to no level, so that level weights do not apply.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "softmax_cross_entropy", "level_weights": (1.0, 1.0, 1.0, 1.0, 1.0)}}

CONFIG = TINY.replace(**CHANGES)
