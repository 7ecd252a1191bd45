"""Samplers, which draw the hard negatives of a query among its nearest documents.

Each sampler is a pure function of scores and a random key, so that a training step that runs again draws the same
negatives.
"""

from crops_jax.negatives.candidates import Candidates, Sampler
from crops_jax.negatives.row_draws import draw_rows
from crops_jax.negatives.simans import SimAns
from crops_jax.negatives.trisampler import TriSampler
from crops_jax.negatives.uniform import UniformSampler

__all__ = ["Candidates", "Sampler", "SimAns", "TriSampler", "UniformSampler", "draw_rows"]
