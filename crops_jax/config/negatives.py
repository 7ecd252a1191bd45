"""The section of a configuration for negatives that the trainer mines with its own model."""

import math
from dataclasses import dataclass
from typing import Literal

from crops_jax.config.rule import require


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Hard negatives that depend on the model, which the trainer mines again and again (crops_jax.training.refresh).

    They fill the documents of a query in a batch after its positives: data.documents_per_query less
    data.positives_per_query. The records need the tokens of all documents (data.write_records --all-documents).
    """

    refresh_every_steps: int = 0
    """The number of steps between refreshes. A refresh embeds all documents and the next queries with the present
    weights, and draws negatives among the nearest documents (ANCE, arXiv 2007.00808). The state of the run, and with it
    each device and checkpoint, holds 4 bytes for each drawn negative of these steps. 0: the negatives are those of the
    records."""
    warmup_steps: int = 0
    """The number of steps before the first refresh, in which the documents of a query are those of its record."""
    sampler: Literal["uniform", "simans", "trisampler"] = "uniform"
    """The distribution of negatives among the nearest documents (crops_jax.negatives). simans and trisampler are
    relative to the score of the positive that is in the batch, and draw nothing if it is not one of the documents."""
    top: int = 200
    """The number of nearest documents of a query among which negatives are drawn, its positives included."""
    simans_a: float = 1.0
    """The factor a of SimANS: p is proportional to exp(-a (s(q, d) - s(q, d+) - b)^2)."""
    simans_b: float = 0.0
    """The difference b of SimANS, at which a document is most probable."""
    trisampler_scale: float = 4.0
    """The scale of the first stage of TriSampler: p is proportional to exp(-(s(q, d) - s(q, d+))^2 / scale)."""
    trisampler_candidates: int = 50
    """The number of documents that the first stage of TriSampler draws."""

    def __post_init__(self) -> None:
        for name in ("refresh_every_steps", "warmup_steps"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("top", "trisampler_candidates"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        for name in ("simans_a", "trisampler_scale"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name} must be positive and finite", value)
        require(math.isfinite(self.simans_b), "simans_b must be finite", self.simans_b)
        rule = "warmup_steps needs refreshes: refresh_every_steps must be positive"
        require(self.refresh_every_steps > 0 or not self.warmup_steps, rule, self.warmup_steps)

    def refreshes_after(self, step: int) -> bool:
        """Returns whether negatives are mined with the weights after a number of steps."""
        every, since = self.refresh_every_steps, step - self.warmup_steps
        return every > 0 and since >= 0 and since % every == 0

    def last_refresh(self, step: int) -> int | None:
        """Returns the step after which the negatives of step `step` + 1 were mined; None before the first refresh."""
        since = step - self.warmup_steps
        if not self.refresh_every_steps or since < 0:
            return None
        return step - since % self.refresh_every_steps
