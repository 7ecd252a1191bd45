"""Softmax cross-entropy over all documents of a batch, with the levels as gains (ListNet's top-one form).

Labels: those of all perspectives.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "softmax_cross_entropy"}}

CONFIG = TINY.replace(**CHANGES)
