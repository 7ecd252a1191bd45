"""InfoNCE with all positives of a query in one pass: levels 4 and 5 against 0 to 3, as with binary labels.

Labels: those of all perspectives.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "multi_positive_infonce"}}

CONFIG = TINY.replace(**CHANGES)
