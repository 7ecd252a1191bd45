"""The schedules of the baselines with mined negatives, in parts of the steps that every system takes."""

from configs.baselines import nce
from configs.baselines.hard_negatives import adore, star
from launch.comparison.phases.plan import Phase, Refreshes

STAR = Refreshes(warmup_parts=1, count=1)
ANCE = Refreshes(warmup_parts=1, count=3)
SIMANS = Refreshes(warmup_parts=2, count=2, sampler="simans")
TRISAMPLER = Refreshes(warmup_parts=2, count=2, sampler="trisampler")

ADORE = (
    Phase(name="warm_up_nce", config=nce.CHANGES, shared=True),
    Phase(name="adore", config=adore.CHANGES, frozen_documents=True),
)
"""The system nce for half of the steps, and then the query tower alone."""
ADORE_STAR = (
    Phase(name="star", parts=3, config=star.CHANGES, refreshes=Refreshes(warmup_parts=2, count=1)),
    Phase(name="adore", config=adore.CHANGES, frozen_documents=True),
)
"""STAR for three quarters of the steps, two of them its warm-up, and then the query tower alone."""
