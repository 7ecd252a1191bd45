"""The loss over several numbers of leading components, against a sum by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax import pretrained
from crops_jax.config import Config, LossConfig, MeshConfig
from crops_jax.devices import sharding
from crops_jax.errors import InputError
from crops_jax.losses import Split, h_infonce, rince
from crops_jax.losses.arguments import LossInputs
from crops_jax.losses.configured import configured_loss
from tests.crops_jax.losses.test_h_infonce import random_case, sparse
from tests.model_folders import write_bert


def case(seed=1):
    """Embeddings of unit length, one query and one document without text among them."""
    q, d, matrix, weights, mask = random_case(seed)
    q, d = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (q, d))
    q[0], d[0] = 0, 0
    given = {"query_weights": jnp.asarray(weights), "doc_mask": jnp.asarray(mask)}
    return jnp.asarray(q), jnp.asarray(d), sparse(matrix), given


def shortened(vectors, dim):
    """In NumPy's float64, zeros staying zeros."""
    cut = np.asarray(vectors, np.float64)[:, :dim]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    return jnp.asarray(cut / np.where(norms > 0, norms, 1), jnp.float32)


def configured(config, queries, documents, labels, given):
    split = Split(sharding.make_mesh(MeshConfig(data=1)))
    inputs = LossInputs(queries, documents, labels, **given)
    return configured_loss(config, inputs, temperature=jnp.float32(0.1), split=split)


@pytest.mark.parametrize("name", ["h_infonce", "rince"])
def test_it_is_the_mean_of_the_losses_by_hand(name):
    queries, documents, labels, given = case()
    dims = (2, 5, queries.shape[1])
    assert queries.shape[1] > 5

    @jax.jit
    def by_hand():
        parts = [(shortened(queries, dim), shortened(documents, dim)) for dim in dims]
        if name == "rince":
            return [rince(*part, labels, temperatures=jnp.full(5, 0.1), form="out", **given) for part in parts]
        return [h_infonce(*part, labels, temperature=0.1, **given) for part in parts]

    losses = np.asarray(by_hand(), np.float64)
    assert len(set(losses.round(4))) == 3
    config = LossConfig(name=name, matryoshka_dims=dims[:-1])
    run = jax.jit(lambda: configured(config, queries, documents, labels, given)[0])
    np.testing.assert_allclose(run(), losses.mean(), rtol=1e-6)


def test_leading_components_learn_more_and_gradients_stay_finite():
    queries, documents, labels, given = case()

    def norms(dims):
        config = LossConfig(matryoshka_dims=dims)

        def loss(queries):
            return configured(config, queries, documents, labels, given)[0]

        gradient = np.asarray(jax.jit(jax.grad(loss))(queries))
        assert np.isfinite(gradient).all()
        return np.abs(gradient[1:, :2]).mean(), np.abs(gradient[1:, 2:]).mean()

    (plain_head, plain_tail), (head, tail) = norms(()), norms((2,))
    assert tail == pytest.approx(plain_tail / 2, rel=1e-5)
    assert head > 0.7 * plain_head


@pytest.mark.parametrize("dims", [(0, 4), (8, 4), (4, 4)])
def test_dims_ascend_from_1(dims):
    with pytest.raises(ValueError, match="matryoshka_dims must be positive and ascend"):
        LossConfig(matryoshka_dims=dims)


def test_dims_are_below_the_width(tmp_path):
    told = r"matryoshka_dims must be below the length of the vectors, 384, found \(64, 384\)"
    with pytest.raises(ValueError, match=told):
        Config().replace(loss={"matryoshka_dims": (64, 384)})
    folder = write_bert(tmp_path / "bert", layers=1)
    config = Config().replace(
        encoder={"weights": str(folder), "max_document_tokens": 40}, loss={"matryoshka_dims": (8, 30)}
    )
    with pytest.raises(InputError, match=r"loss.matryoshka_dims: 30 is not below 30, the length of the vectors of"):
        pretrained.resolve_config(config)
    fits = dataclasses.replace(config, loss=LossConfig(matryoshka_dims=(8, 16)))
    assert pretrained.resolve_config(fits).encoder.width == 30
