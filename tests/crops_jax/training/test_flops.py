"""Against numbers by hand, and against XLA's own count of a train step."""

import pytest

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.devices.accelerators import accelerator_of
from crops_jax.models.dual_encoder import abstract_dual_encoder
from crops_jax.program import load_config
from crops_jax.training import flops
from crops_jax.training.compilation import TextLengths, abstract_batch
from crops_jax.training.state import abstract_state
from crops_jax.training.step import make_train_step
from tests.model_folders import small_config


def test_qwen2_5_0_5b_by_hand():
    config = load_config("qwen2_5_0_5b")
    # 24 layers of query and output 896 x 896, key and value 896 x 128, and three matrices 896 x 4864.
    matrices = 24 * (2 * 896 * 896 + 2 * 896 * 128 + 3 * 896 * 4864)
    assert flops.token_flops(config.encoder) == 2 * matrices == 715_653_120
    # 14 heads of 64; 128 tokens see 1 to 128 tokens.
    attention = flops.attention_flops(config.encoder, tokens=128, causal_pairs=128 * 129 / 2)
    assert attention == 4 * 24 * 14 * 64 * 8256
    queries, documents = 1024, 4096
    texts = queries + documents
    found = flops.step_flops(config, tokens=texts * 128, causal_pairs=texts * 8256)
    assert found == 3 * (texts * (128 * 2 * matrices + attention) + 2 * queries * documents * 896)


def test_small_towers_by_hand():
    bert = small_config(layers=1).encoder
    assert flops.attention_flops(bert, tokens=7, causal_pairs=28) == 4 * 30 * 49
    gated = small_config(layers=1, family="nomic_bert", width=36).encoder
    assert flops.token_flops(gated) == 2 * (4 * 36 * 36 + 3 * 36 * 52)
    grouped = {"family": "gemma3", "key_value_heads": 1, "head_width": 8}
    dense = {"dense_widths": (5, 7), "dense_biases": (True, False), "dense_activations": ("tanh", "identity")}
    gemma = small_config(layers=1, **grouped, **dense)
    assert flops.token_flops(gemma.encoder) == 2 * (2 * 30 * 24 + 2 * 30 * 8 + 3 * 30 * 52)
    found = flops.step_flops(gemma, tokens=0, causal_pairs=0)
    queries, documents = gemma.data.queries_per_batch, gemma.data.queries_per_batch * gemma.data.documents_per_query
    assert found == 3 * (2 * (30 * 5 + 5 * 7) * (queries + documents) + 2 * queries * documents * 7)
    hashed = small_config(
        family="hashed", layers=2, hashed_features=("unigrams", "text"), feature_width=5, feed_forward_width=7
    )
    assert flops.hashed_text_flops(hashed.encoder) == 2 * (10 * 7 + 7 * 7 + 7 * 30)


@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_a_train_step_has_the_flops_that_xla_counts(family):
    """Nothing is padded nor computed again here, so what XLA counts beside is norms, softmax and the like."""
    tokens = 32
    config = small_config(
        family=family,
        width=256,
        heads=4,
        layers=1,
        feed_forward_width=1024,
        max_query_tokens=tokens,
        max_document_tokens=tokens,
    ).replace(data={"queries_per_batch": 64, "documents_per_query": 1}, loss={"implementation": "dense"})
    mesh = sharding.make_mesh(MeshConfig(data=1))
    model = abstract_dual_encoder(config)
    batch = abstract_batch(config, TextLengths(tokens, tokens), mesh=mesh)
    assert batch.texts[0].tokens.shape == (1, 128, tokens)
    step = make_train_step(model, config, steps=10, mesh=mesh)
    counted = step.lower(abstract_state(model, config, steps=10, mesh=mesh), batch).cost_analysis()["flops"]
    expected = flops.step_flops(config, tokens=128 * tokens, causal_pairs=128 * tokens * (tokens + 1) / 2)
    assert counted == pytest.approx(expected, rel=0.05)


def test_utilization_is_known_where_the_peak_is():
    assert flops.utilization(197e12, 2.0, devices=4, device_kind="TPU v5 lite") == 1 / 8
    assert flops.utilization(1.0, 1.0, devices=1, device_kind="cpu") is None
    assert flops.utilization(1.0, 0.0, devices=1, device_kind="TPU v4") is None


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v4", 275e12), ("TPU v5p", 459e12), ("TPU v6 lite", 918e12), ("NVIDIA H100 80GB HBM3", 989e12)],
)
def test_accelerators_go_by_the_beginning_of_their_name(kind, peak):
    found = accelerator_of(kind)
    assert found is not None
    assert found.peak_flops == peak
