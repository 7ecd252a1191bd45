"""What a run may start from, and what its manifest keeps of it."""

import jax
import numpy as np
import pytest
from flax import nnx

from crops_jax import artifacts
from crops_jax.devices import sharding
from crops_jax.errors import InputError
from crops_jax.models.dual_encoder import abstract_dual_encoder, random_dual_encoder
from crops_jax.models.parameters import place_parameters
from crops_jax.runs.checkpoints import Best, Checkpoints, Progress
from crops_jax.runs.folder import open_run
from crops_jax.runs.initial_run import read_weights, weights_fingerprint
from tests.tiny_run import CONFIG, tiny_records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records")


def parameters(seed, config=CONFIG):
    return nnx.to_pure_dict(nnx.state(random_dual_encoder(config, seed=seed), nnx.Param))


def save(run, config, steps, *, best, average=None):
    """Saves the parameters of each seed in `steps` under the seed as step."""
    with Checkpoints(run, config, keep_last=9) as checkpoints:
        for step in steps:
            items = {"parameters": parameters(step, config), "optimizer": {"step": np.int32(step)}}
            items |= {} if average is None else {"average": parameters(average, config)}
            checkpoints.save(step, items, Progress(Best(best, 0.5)))


def opened(run, records, *, config=CONFIG, initial_run=None):
    with open_run(run, config=config, records=records, arguments={}, initial_run=initial_run) as path:
        return path


@pytest.fixture(scope="module")
def warm(records, tmp_path_factory):
    """A finished run whose second checkpoint is the best one; its temperature is not that of CONFIG."""
    config = CONFIG.replace(loss={"initial_temperature": 0.7}, encoder={"dropout": 0.0, "max_query_tokens": 5})
    run = opened(tmp_path_factory.mktemp("warm") / "run", records, config=config)
    save(run, config, [1, 2, 3], best=2)
    return run


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_weights_are_the_best_ones_and_the_temperature_starts_anew(warm, tmp_path):
    found = read_weights(warm, run=tmp_path, config=CONFIG)
    mesh = sharding.make_mesh(CONFIG.mesh)
    expected = {**parameters(2), "log_inverse_temperature": np.float32(-np.log(0.1))}
    assert_equal(place_parameters(abstract_dual_encoder(CONFIG), found, mesh), expected)


def test_a_moving_average_is_what_a_run_starts_from(records, tmp_path):
    config = CONFIG.replace(optimizer={"ema_decay": 0.9})
    run = opened(tmp_path / "warm", records, config=config)
    save(run, config, [1], best=1, average=8)
    np.testing.assert_array_equal(
        read_weights(run, run=tmp_path, config=CONFIG)["tower"]["token_embedding"]["embedding"],
        parameters(8)["tower"]["token_embedding"]["embedding"],
    )


def test_the_fingerprint_of_weights_tells_numbers_paths_and_shapes_apart():
    one = {"a": np.arange(6, dtype=np.float32), "b": np.zeros((), np.float32)}
    same = {"b": np.float32(0), "a": np.arange(6, dtype=np.float32)}
    others = [
        {**one, "a": one["a"].reshape(2, 3)},
        {**one, "a": one["a"] + np.float32(1e-6)},
        {"a": one["a"], "c": one["b"]},
    ]
    assert weights_fingerprint(one) == weights_fingerprint(same)
    assert len({weights_fingerprint(tree) for tree in (one, *others)}) == 4


def test_the_manifest_keeps_the_run_and_its_weights(warm, records, tmp_path):
    run = opened(tmp_path / "run", records, initial_run=warm)
    manifest = artifacts.read_manifest(run)
    assert manifest["inputs"]["initial_run"]["fingerprint"] == artifacts.fingerprint(warm)
    assert manifest["inputs"]["initial_run"]["manifest"] == artifacts.read_manifest(warm)
    best = jax.tree.map(np.asarray, parameters(2) | {"log_inverse_temperature": np.float32(-np.log(0.7))})
    assert manifest["initial_weights"] == weights_fingerprint(best)
    plain = artifacts.read_manifest(opened(tmp_path / "plain", records))
    assert set(plain["inputs"]) == {"records"}
    assert set(manifest) - set(plain) == {"initial_weights"}
    assert plain["arguments"] == manifest["arguments"]


def test_what_does_not_fit_is_refused_before_a_run_is_made(warm, records, tmp_path):
    def refused(words, *, config=CONFIG, records=records, initial_run=warm):
        with pytest.raises(InputError, match=words):
            opened(tmp_path / "run", records, config=config, initial_run=initial_run)
        assert not (tmp_path / "run").exists()

    refused(
        r"another architecture: encoder.layers: 1 there, 2 here; encoder.pooling: mean there, first here; give",
        config=CONFIG.replace(encoder={"layers": 2, "pooling": "first"}),
    )
    refused("records of another tokenizer", records=tiny_records(tmp_path / "tokens", words=30))
    refused(r"written by data\.write_records and holds records", initial_run=records)
    refused("no such directory", initial_run=tmp_path / "absent")
    refused("no checkpoint yet", initial_run=opened(tmp_path / "begun", records))


def test_two_ways_to_start_are_refused(warm, records, tmp_path, monkeypatch):
    # The tokenizer of the weights is checked first, and these weights are on no disk.
    monkeypatch.setattr("crops_jax.runs.folder.check_records", lambda *_: None)
    with pytest.raises(InputError, match=r"encoder\.weights somewhere both name the weights"):
        opened(tmp_path / "run", records, config=CONFIG.replace(encoder={"weights": "somewhere"}), initial_run=warm)


def test_a_run_is_opened_again_only_as_it_was_started(warm, records, tmp_path):
    other = opened(tmp_path / "other", records, config=CONFIG.replace(training={"seed": 9}))
    save(other, CONFIG.replace(training={"seed": 9}), [1], best=1)
    run = opened(tmp_path / "run", records, initial_run=warm)
    with pytest.raises(InputError, match="was not started from a run"):
        opened(other, records, config=CONFIG.replace(training={"seed": 9}), initial_run=warm)
    with pytest.raises(InputError, match="has no checkpoint yet; give that run"):
        opened(run, records)
    save(run, CONFIG, [1], best=1)
    opened(run, records, initial_run=warm)
    opened(run, records)
    opened(run, records, initial_run=tmp_path / "gone")


def test_another_run_to_start_from_is_refused(warm, records, tmp_path):
    run = opened(tmp_path / "run", records, initial_run=warm)
    other = opened(tmp_path / "other", tiny_records(tmp_path / "records", seed=1))
    save(other, CONFIG, [1], best=1)
    with pytest.raises(InputError, match="was started from another run than --initial-run"):
        opened(run, records, initial_run=other)


def test_weights_that_have_changed_since_the_run_was_begun_are_refused(records, tmp_path):
    warm = opened(tmp_path / "warm", records)
    save(warm, CONFIG, [1], best=1)
    run = opened(tmp_path / "run", records, initial_run=warm)
    read_weights(warm, run=run, config=CONFIG)
    save(warm, CONFIG, [2], best=2)
    with pytest.raises(InputError, match="has other weights now"):
        read_weights(warm, run=run, config=CONFIG)


def test_a_dual_encoder_starts_a_poly_encoder_whose_codes_are_those_of_the_seed(warm, records, tmp_path):
    config = CONFIG.replace(encoder={"query_codes": 4})
    opened(tmp_path / "run", records, config=config, initial_run=warm)
    found = read_weights(warm, run=tmp_path / "run", config=config)
    codes = found.pop("query_codes")["codes"]
    assert_equal(found, read_weights(warm, run=tmp_path, config=CONFIG))
    assert codes.shape == (4, 16)
    again, other = (
        read_weights(warm, run=tmp_path, config=config.replace(training={"seed": seed}))["query_codes"]["codes"]
        for seed in (CONFIG.training.seed, 99)
    )
    np.testing.assert_array_equal(again, codes)
    assert np.abs(other - codes).max() > 0.01
    place_parameters(
        abstract_dual_encoder(config), found | {"query_codes": {"codes": codes}}, sharding.make_mesh(config.mesh)
    )


def test_codes_are_not_thrown_away(records, tmp_path):
    config = CONFIG.replace(encoder={"query_codes": 4})
    save(opened(tmp_path / "poly", records, config=config), config, [1], best=1)
    with pytest.raises(InputError, match=r"encoder\.query_codes: 4 there, 0 here"):
        opened(tmp_path / "run", records, initial_run=tmp_path / "poly")
