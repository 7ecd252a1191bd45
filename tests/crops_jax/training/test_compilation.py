import jax
import pytest
from flax import nnx

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.devices.accelerators import Accelerator
from crops_jax.errors import InputError, NamedFailure
from crops_jax.training import compilation
from crops_jax.training.compilation import TextLengths, abstract_batch, check_memory, compile_step
from crops_jax.training.state import abstract_state
from crops_jax.training.step import make_train_step
from tests.tiny_run import CONFIG, BagEncoder


def rows(lengths, *, micro_batches=1, **encoder):
    """Groups, rows and tokens of 2 groups of 8 queries and 32 documents each."""
    config = CONFIG.replace(
        encoder={"max_positions": 64, "max_query_tokens": 16, "max_document_tokens": 64, **encoder},
        data={"queries_per_batch": 16, "documents_per_query": 4},
        training={"micro_batches": micro_batches},
    )
    batch = abstract_batch(config, TextLengths(*lengths), mesh=sharding.make_mesh(MeshConfig(data=2)))
    assert batch.document_ids.shape == (64, 2)
    return [texts.tokens.shape for texts in batch.texts]


def test_rows_are_those_that_the_trainer_would_choose():
    # A document a row, four queries a row.
    assert rows((16, 64)) == [(2, 34, 64)]
    assert rows((16, 64), micro_batches=4) == [(2, 36, 64)]
    assert rows((16, 64), shared_towers=False) == [(2, 2, 64), (2, 32, 64)]
    # Two thirds of a row each, so one a row, or 8 x 8 + 32 x 42 tokens with a tenth of padding.
    assert rows((8, 42)) == [(2, 25, 64)]


def test_a_step_that_fits_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(compilation, "accelerator_of", lambda kind: Accelerator(1 << 30, 1e9, 1e12))
    small = nnx.eval_shape(lambda: BagEncoder(CONFIG, seed=0))
    monkeypatch.setattr(compilation, "abstract_dual_encoder", lambda config: small)
    found = compile_step(CONFIG, TextLengths(6, 12), devices=jax.devices())
    assert found["devices"] == 1
    assert found["mesh"] == {"data": 1, "fsdp": 1, "model": 1}
    assert (found["rows"], found["row_tokens"]) == (17, 16)
    assert 0 < found["argument_bytes"] <= found["needed_bytes"] < found["memory_bytes"] == 1 << 30
    assert found["model_flops"] > 0
    assert found["compiler_flops"] > 0
    assert found["estimate"] in ("compiler", "roofline")
    assert 0 < found["model_flops_utilization"] < 1


def test_the_batch_of_a_step_that_distils_has_scores():
    mesh = sharding.make_mesh(MeshConfig(data=2))
    assert abstract_batch(CONFIG, TextLengths(6, 12), mesh=mesh).labelled_scores is None
    config = CONFIG.replace(loss={"distillation": "kl"}, mesh={"data": 2})
    batch = abstract_batch(config, TextLengths(6, 12), mesh=mesh)
    assert batch.labelled_scores.shape == batch.labelled_levels.shape
    model = nnx.eval_shape(lambda: BagEncoder(config, seed=0))
    step = make_train_step(model, config, steps=10, mesh=mesh)
    _, metrics = jax.eval_shape(step, abstract_state(model, config, steps=10, mesh=mesh), batch)
    assert metrics.distillation.shape == ()


def test_a_step_that_does_not_fit_says_what_to_change():
    v5e = Accelerator(16 << 30, 819e9, 197e12)
    check_memory(16 << 30, v5e, "TPU v5 lite")
    with pytest.raises(
        NamedFailure, match=r"a TPU v5 lite: it needs 20.50 GiB, of 16 GiB; a larger --mesh.fsdp splits"
    ):
        check_memory(41 << 29, v5e, "TPU v5 lite")


def test_a_batch_that_the_mesh_cannot_split_is_refused():
    config = CONFIG.replace(mesh={"data": -1}, data={"queries_per_batch": 12})
    with pytest.raises(InputError, match="12 is not a multiple of the mesh's data x fsdp, 8"):
        compile_step(config, TextLengths(6, 12), devices=jax.devices())
