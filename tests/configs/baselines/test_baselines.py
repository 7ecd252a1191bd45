"""Every baseline differs from tiny_cpu in the fields listed here and in no other, and its loss can be trained with."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny_hashed
from crops_jax import program
from crops_jax.losses import Split
from crops_jax.losses.arguments import LossInputs
from crops_jax.losses.configured import configured_loss
from tests.crops_jax.losses.test_h_infonce import random_case, sparse
from tests.crops_jax.losses.test_over_devices import mesh_of
from tests.paths import ROOT

DIFFERENCES = {
    "crops": {},
    "distilled": {"loss.distillation": "kl"},
    "distilled_margin_mse": {"loss.distillation": "margin_mse"},
    "fs_lr_lambda": {"loss.name": "lambda_ndcg"},
    "hard_negatives.adore": {
        "loss.name": "lambda_mrr",
        "data.documents_per_query": 1,
        "encoder.shared_towers": False,
    },
    "hard_negatives.ance": {
        "loss.name": "pairwise_log",
        "data.positives_per_query": 1,
        "negatives.warmup_steps": 500,
        "negatives.refresh_every_steps": 500,
    },
    "hard_negatives.dpr": {"loss.name": "infonce", "data.documents_per_query": 2, "data.positives_per_query": 1},
    "hard_negatives.sampled": {
        "loss.name": "infonce",
        "data.positives_per_query": 1,
        "negatives.warmup_steps": 500,
        "negatives.refresh_every_steps": 500,
        "negatives.sampler": "simans",
    },
    "hard_negatives.star": {
        "loss.name": "pairwise_log",
        "data.documents_per_query": 2,
        "data.positives_per_query": 1,
        "negatives.warmup_steps": 500,
        "negatives.refresh_every_steps": 1_000_000,
    },
    "fs_lr_ranknet": {"loss.name": "ranknet"},
    "losses.infonce": {"loss.name": "infonce"},
    "losses.multi_positive_infonce": {"loss.name": "multi_positive_infonce"},
    "losses.rince": {"loss.name": "rince", "loss.rince_temperature_factors": (2.0, 1.75, 1.5, 1.25, 1.0)},
    "losses.softmax_cross_entropy": {"loss.name": "softmax_cross_entropy"},
    "nce": {"loss.name": "infonce", "data.documents_per_query": 1},
    "nce_binary": {"loss.name": "binary_nce", "data.documents_per_query": 1},
    "nce_log_q": {"loss.name": "infonce", "loss.log_q_correction": True, "data.documents_per_query": 1},
    "poly_encoder": {"encoder.query_codes": 64},
}


def fields(config) -> dict:
    sections = dataclasses.asdict(config)
    return {f"{section}.{name}": value for section, part in sections.items() for name, value in part.items()}


def differences(one, other) -> dict:
    before, after = fields(one), fields(other)
    return {name: after[name] for name in after if after[name] != before[name]}


def test_every_baseline_is_listed():
    folder = ROOT / "configs" / "baselines"
    files = [file.relative_to(folder).with_suffix("") for file in folder.rglob("*.py") if file.stem != "__init__"]
    assert sorted(".".join(file.parts) for file in files) == sorted(DIFFERENCES)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_baseline_differs_in_the_fields_listed(name):
    found = program.load_config(f"baselines.{name}")
    assert differences(program.load_config("tiny_cpu"), found) == DIFFERENCES[name]


@pytest.mark.parametrize("name", sorted(DIFFERENCES.keys() - {"poly_encoder"}))  # hashed towers cannot have codes
def test_its_changes_make_the_same_baseline_of_another_configuration(name):
    module = importlib.import_module(f"configs.baselines.{name}")
    found = tiny_hashed.CONFIG.replace(**module.CHANGES, negatives=getattr(module, "NEGATIVES", {}))
    assert differences(tiny_hashed.CONFIG, found) == DIFFERENCES[name]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_its_loss_and_gradients_of_a_tiny_batch_are_finite(name):
    config = program.load_config(f"baselines.{name}").loss
    q, d, matrix, weights, mask = random_case(1)
    log_p = np.linspace(-3, 0, len(d), dtype=np.float32) if config.log_q_correction else None
    labels = sparse(matrix)
    scores = jnp.full(labels.level.shape, 0.7) if config.distillation != "none" else None

    @jax.jit
    def run(q, d):
        def loss(q, d):
            inputs = LossInputs(q, d, labels, jnp.asarray(weights), jnp.asarray(mask), log_p, scores)
            return configured_loss(config, inputs, temperature=jnp.float32(0.05), split=Split(mesh_of(1)))[0]

        return jax.value_and_grad(loss, argnums=(0, 1))(q, d)

    found, gradients = run(q, d)
    assert 0 < float(found) < np.inf
    assert all(np.isfinite(gradient).all() and np.abs(gradient).max() > 0 for gradient in gradients)
