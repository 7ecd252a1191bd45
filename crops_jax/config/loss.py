"""The configuration of the loss and its temperature."""

import math
from dataclasses import dataclass
from typing import Literal

from crops_jax.config.rule import require

PAIRWISE_LOSSES = ("ranknet", "lambda_mrr", "lambda_ndcg", "pairwise_log", "binary_nce")
"""The losses that need every score of a batch, so that their only implementation is the dense one."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss and its temperature."""

    name: Literal[
        "h_infonce",
        "infonce",
        "multi_positive_infonce",
        "softmax_cross_entropy",
        "rince",
        "ranknet",
        "lambda_mrr",
        "lambda_ndcg",
        "pairwise_log",
        "binary_nce",
    ] = "h_infonce"
    """The loss; see the function of this name in crops_jax.losses, and "lambda_loss" for lambda_mrr and lambda_ndcg."""
    implementation: Literal["auto", "dense", "streaming", "pallas"] = "auto"
    """The losses from ranknet on need every score of a batch; their only implementation is dense."""
    normalization: Literal["anchors", "queries", "sum"] = "anchors"
    """The loss is the mean over all terms of a batch, the mean over the means of its queries, or the plain sum."""
    level_weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """The weight of a term by the level of its document, for levels 1 to 5."""
    ignore_margin: float | None = None
    """A document of another query is ignored when its score is at least that of the query's best positive minus this
    margin. None: no document is ignored."""
    log_q_correction: bool = False
    """Whether the logarithm of the estimated probability that a batch holds a document is subtracted from the
    document's scores with other queries than its own."""
    log_q_decay: float = 0.05
    """The weight of the newest interval in the moving average that estimates this probability."""
    log_q_buckets: int = 1 << 20
    """The number of hash buckets of this estimate, 8 bytes each. It should be several times the number of documents."""
    matryoshka_dims: tuple[int, ...] = ()
    """The numbers of leading components, each below the length of the vectors, that can be used as shorter vectors
    (Matryoshka representations, arXiv 2205.13147). The loss is its mean over these and the full length. Empty: the full
    length."""
    rince_form: Literal["out", "in", "out_in"] = "out"
    """The form of the loss rince: which positives of a level its denominator has (Hoffmann et al., AAAI 2022)."""
    rince_temperature_factors: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """The temperatures of levels 1 to 5 as multiples of the learnt temperature."""
    distillation: Literal["none", "kl", "margin_mse"] = "none"
    """The loss that is added to the loss `name`, to bring the scores of a query's documents near those of the relevance
    discriminator, which data.write_records --discriminator writes. "kl" compares distributions, "margin_mse" the
    differences of all pairs (crops_jax.losses.distillation)."""
    distillation_weight: float = 1.0
    """The weight of the added loss."""
    teacher_temperature: float = 1.0
    """The number by which the logits of the discriminator are divided. That of the encoder is the learnt
    temperature."""
    corpus_top: int = 200
    """The number of first documents of the whole corpus over which the loss of a query is, when the document tower is
    frozen (launch.train --document-embeddings). It has no effect otherwise."""
    initial_temperature: float = 0.05
    """The temperature by which scores are divided, at the first step."""
    learn_temperature: bool = True
    """Whether the temperature is learnt. Otherwise it stays the initial one."""
    minimum_temperature: float = 0.01
    """The lower limit of the temperature, which is clipped after each step."""
    maximum_temperature: float = 1.0
    """The upper limit of the temperature."""

    def __post_init__(self) -> None:
        require(
            0 < self.minimum_temperature <= self.initial_temperature <= self.maximum_temperature,
            "0 < minimum_temperature <= initial_temperature <= maximum_temperature",
            f"{self.minimum_temperature}, {self.initial_temperature}, {self.maximum_temperature}",
        )
        weights, factors = self.level_weights, self.rince_temperature_factors
        finite = len(weights) == 5 and all(0 <= weight < math.inf for weight in weights)
        require(finite, "level_weights must be 5 finite numbers >= 0", weights)
        finite = len(factors) == 5 and all(0 < factor < math.inf for factor in factors)
        require(finite, "rince_temperature_factors must be 5 finite numbers > 0", factors)
        plain = self.name != "softmax_cross_entropy" or all(weight == 1 for weight in weights)
        require(plain, "softmax_cross_entropy has no terms of a level: level_weights must be 1", weights)
        if self.name in PAIRWISE_LOSSES:
            dense = self.implementation in ("auto", "dense")
            require(dense, f"{self.name} needs every score: implementation must be auto or dense", self.implementation)
            corrected = self.log_q_correction and self.name != "binary_nce"
            require(not corrected, f"{self.name} has no sum that log_q_correction could correct; it must be off", "on")
        margin = self.ignore_margin
        require(margin is None or math.isfinite(margin), "ignore_margin must be finite or None", margin)
        require(0 < self.log_q_decay <= 1, "log_q_decay must lie in (0, 1]", self.log_q_decay)
        require(self.log_q_buckets > 0, "log_q_buckets must be positive", self.log_q_buckets)
        weight, teacher = self.distillation_weight, self.teacher_temperature
        require(0 < weight < math.inf, "distillation_weight must be positive and finite", weight)
        require(0 < teacher < math.inf, "teacher_temperature must be positive and finite", teacher)
        require(self.corpus_top > 0, "corpus_top must be positive", self.corpus_top)
        dims = self.matryoshka_dims
        ascending = all(low < high for low, high in zip((0, *dims), dims))
        require(ascending, "matryoshka_dims must be positive and ascend", dims)
