"""Training losses. Each loss is one function; its docstring has the formula, the shapes and the paper.

All losses are functions of the same few numbers, which level_sums/ computes: the scores of the named pairs, which are
the pairs whose level is not 0, and the logsumexp of level 0 of each query. A loss applies a formula of shape
[queries, k] to them.
"""

from crops_jax.losses.arguments import LossOptions
from crops_jax.losses.binary_infonce import infonce, multi_positive_infonce
from crops_jax.losses.hierarchical_infonce import h_infonce
from crops_jax.losses.level_sums.api import Split, implementation_that_runs
from crops_jax.losses.listwise import softmax_cross_entropy
from crops_jax.losses.ranking_infonce import rince

__all__ = [
    "LossOptions",
    "Split",
    "h_infonce",
    "implementation_that_runs",
    "infonce",
    "multi_positive_infonce",
    "rince",
    "softmax_cross_entropy",
]
