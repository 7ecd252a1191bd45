"""InfoNCE with one positive of each query in a step, one of its highest level; other positives take no part.

It is the loss of one pass for each positive; configs.baselines.losses.multi_positive_infonce makes them at once.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "infonce"}}

CONFIG = TINY.replace(**CHANGES)
