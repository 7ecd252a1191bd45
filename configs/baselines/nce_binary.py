"""Binary noise contrastive estimation (Gutmann and Hyvarinen, AISTATS 2010): configs.baselines.nce, pair by pair.

Each positive and each document of another query is classified by a sigmoid. Labels: those of the search log alone.
"""

from configs.baselines.nce import CHANGES as NCE
from configs.tiny_cpu import CONFIG as TINY

CHANGES = {**NCE, "loss": {"name": "binary_nce"}}

CONFIG = TINY.replace(**CHANGES)
