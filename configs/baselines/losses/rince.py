"""Ranking InfoNCE (Hoffmann et al., AAAI 2022, arXiv 2201.11736), form OUT: a temperature for each level.

With equal temperatures it would be H-InfoNCE. As in the paper, lower levels have higher ones; these factors, in equal
steps up to 2, are a choice of this project. Labels: those of all perspectives.
"""

from configs.tiny_cpu import CONFIG as TINY

CHANGES = {"loss": {"name": "rince", "rince_form": "out", "rince_temperature_factors": (2.0, 1.75, 1.5, 1.25, 1.0)}}

CONFIG = TINY.replace(**CHANGES)
