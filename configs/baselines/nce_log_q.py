"""In-batch sampled softmax with the logQ correction (Yi et al., RecSys 2019): configs.baselines.nce, corrected.

A frequent document is a negative more often; its estimated probability of being in a batch is taken off its scores.
Labels: those of the search log alone.
"""

from configs.baselines.nce import CHANGES as NCE
from configs.tiny_cpu import CONFIG as TINY

CHANGES = {**NCE, "loss": {**NCE["loss"], "log_q_correction": True}}

CONFIG = TINY.replace(**CHANGES)
