"""Scoring: independent of the company, few shapes, saving and loading."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from crops_jax import discriminator
from crops_jax.discriminator.calibration import Scaling, sigmoid
from crops_jax.discriminator.cross_encoder import CrossEncoderDiscriminator
from crops_jax.errors import InputError, NamedFailure
from crops_jax.text import packing
from crops_jax.text.pair_tokens import pair_row_widths
from tests.tiny_pairs import CONFIG, tiny_cross_encoder, tiny_tokenizer, toy_pairs

QUERIES, DOCUMENTS, _ = toy_pairs(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer")


def discriminator_of(folder, model=None, **changed):
    given = {
        "config": CONFIG.encoder,
        "max_tokens": 8,
        "tokenizer_folder": folder,
        "scaling": Scaling(2.0, 0.5),
        **changed,
    }
    return CrossEncoderDiscriminator(model or tiny_cross_encoder(), **given)


@pytest.fixture(scope="module")
def theta(folder):
    # Larger weights than training starts from, so that texts differ.
    model = tiny_cross_encoder()
    graph, state = nnx.split(model)
    return discriminator_of(folder, nnx.merge(graph, jax.tree.map(lambda leaf: leaf * 8, state)), report={"pairs": 3})


def test_a_score_is_the_models_calibrated_probability(theta):
    logits = theta.logits(QUERIES, DOCUMENTS)
    scores = theta.score(QUERIES, DOCUMENTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, sigmoid(logits.astype(np.float64) / 2 + 0.5), rtol=1e-6)
    assert np.ptp(logits) > 0.01
    tokens = theta._tokenizer.encode_pair(QUERIES[7], DOCUMENTS[7])
    model = jax.jit(lambda *rows: nnx.merge(theta._graph, theta._state)(*rows))
    one = model(np.array([tokens.ids]), np.array([tokens.type_ids]))
    np.testing.assert_allclose(logits[7], one[0], atol=1e-5)


def test_a_score_does_not_depend_on_the_company_nor_on_the_form_of_the_query(theta):
    together = theta.score(QUERIES, DOCUMENTS)
    np.testing.assert_array_equal(theta.score(QUERIES[::-1], DOCUMENTS[::-1])[::-1], together)
    np.testing.assert_array_equal(theta.score(QUERIES[7:9], DOCUMENTS[7:9]), together[7:9])
    np.testing.assert_array_equal(theta.score([query.upper() + " " for query in QUERIES], DOCUMENTS), together)
    assert theta.score([], []).shape == (0,)


def test_batches_have_at_most_four_shapes_and_hold_every_pair_once(folder, monkeypatch):
    monkeypatch.setattr(packing, "CPU_BATCH_TOKENS", 256)
    theta = discriminator_of(folder, max_tokens=24)
    lengths = np.random.default_rng(0).integers(4, 25, 500)
    seen, shapes = [], set()
    for width, chosen in theta._batches(lengths):
        seen += chosen[chosen >= 0].tolist()
        shapes.add((len(chosen), width))
        assert len(chosen) % jax.device_count() == 0
        assert (lengths[chosen[chosen >= 0]] <= width).all()
    assert sorted(seen) == list(range(500))
    assert len(shapes) <= len(pair_row_widths(24)) <= 4


def test_saved_and_loaded_it_is_the_same_in_the_same_bytes(theta, tmp_path):
    for name in ("a", "b"):
        theta.save(tmp_path / name)
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    loaded = discriminator.load(tmp_path / "a")
    assert isinstance(loaded, CrossEncoderDiscriminator)
    np.testing.assert_array_equal(loaded.score(QUERIES, DOCUMENTS), theta.score(QUERIES, DOCUMENTS))
    assert loaded.fingerprint == theta.fingerprint
    assert loaded.report == {"pairs": 3}
    loaded.save(tmp_path / "a")
    assert discriminator.load(tmp_path / "a").fingerprint == theta.fingerprint


def test_the_fingerprint_follows_all_that_decides_a_score(theta, folder):
    others = [
        discriminator_of(folder),
        discriminator_of(folder, tiny_cross_encoder(seed=1)),
        discriminator_of(folder, scaling=Scaling(1.0, 0.5)),
        discriminator_of(folder, scaling=Scaling(2.0, 0.0)),
        discriminator_of(folder, max_tokens=12),
    ]
    assert len({theta.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert discriminator_of(folder, report={"pairs": 9}).fingerprint == others[0].fingerprint


def test_what_cannot_be_read_is_said(theta, tmp_path):
    theta.save(tmp_path)
    described = json.loads((tmp_path / "discriminator.json").read_text())
    for broken in (
        {**described, "encoder": {**described["encoder"], "width": 32}},
        {**described, "encoder": {**described["encoder"], "wings": 2}},
        {name: value for name, value in described.items() if name != "temperature"},
        {name: value for name, value in described.items() if name != "bias"},
    ):
        (tmp_path / "discriminator.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match="not a readable discriminator"):
            discriminator.load(tmp_path)
    theta.save(tmp_path)
    weights = tmp_path / "cross_encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable discriminator"):
        discriminator.load(tmp_path)


def test_weights_that_are_not_finite_are_a_named_failure(folder):
    model = tiny_cross_encoder()
    model.head.bias[...] = np.array([np.nan], np.float32)
    with pytest.raises(NamedFailure, match="not finite"):
        discriminator_of(folder, model).score(QUERIES[:2], DOCUMENTS[:2])


def test_a_tokenizer_of_another_model_is_refused(folder):
    small = CONFIG.replace(encoder={"vocabulary_size": 20})
    theta = discriminator_of(folder, tiny_cross_encoder(small), config=small.encoder)
    with pytest.raises(InputError, match="beyond the 20 rows"):
        theta.score(["zebra"], ["x"])
