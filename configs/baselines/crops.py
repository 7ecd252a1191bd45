"""CroPS (arXiv 2511.15443): H-InfoNCE over the levels of all perspectives. It changes nothing.

On labels of the search log alone it is the ablation that the paper calls its baseline, the third form of FS-LR.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {}

CONFIG = TINY.replace(**CHANGES)
