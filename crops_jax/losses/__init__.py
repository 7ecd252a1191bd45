"""Training losses. Each loss is one function; its docstring has the formula, the shapes and the paper.

Most losses are functions of the same few numbers, which level_sums/ computes: the scores of the named pairs, which are
the pairs whose level is not 0, and the logsumexp of level 0 of each query. A loss applies a formula of shape
[queries, k] to them. The losses in pairwise/ need every score of a batch. Those of distillation.py are added to another
loss.
"""

from crops_jax.losses.arguments import LossOptions
from crops_jax.losses.binary_infonce import infonce, multi_positive_infonce
from crops_jax.losses.distillation import distillation_kl, margin_mse
from crops_jax.losses.hierarchical_infonce import h_infonce
from crops_jax.losses.level_sums.api import Split, implementation_that_runs
from crops_jax.losses.listwise import softmax_cross_entropy
from crops_jax.losses.pairwise.noise_contrast import binary_nce
from crops_jax.losses.pairwise.pair_losses import pairwise_log, ranknet
from crops_jax.losses.pairwise.rank_weights import lambda_loss
from crops_jax.losses.ranking_infonce import rince

__all__ = [
    "LossOptions",
    "Split",
    "binary_nce",
    "distillation_kl",
    "h_infonce",
    "implementation_that_runs",
    "infonce",
    "lambda_loss",
    "margin_mse",
    "multi_positive_infonce",
    "pairwise_log",
    "ranknet",
    "rince",
    "softmax_cross_entropy",
]
