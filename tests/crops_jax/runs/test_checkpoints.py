import errno
import json
from contextlib import suppress

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.errors import InputError, NamedFailure
from crops_jax.runs import checkpoints as checkpoint
from crops_jax.runs.checkpoints import Best, Checkpoints, Progress
from crops_jax.training.optimizer import make_optimizer
from crops_jax.training.state import TrainState, restore_state, save_state
from tests.tiny_run import CONFIG

SPLIT = MeshConfig(data=4, model=2)


def state_at(step, mesh_config=SPLIT, value=1.0):
    mesh = sharding.make_mesh(mesh_config)
    parameters = {
        "tower": {"layers": {0: {"up": {"kernel": jnp.full((4, 8), value)}}, 1: {"up": {"bias": jnp.arange(8.0)}}}},
        "log_inverse_temperature": jnp.float32(step),
    }
    optimizer = make_optimizer(CONFIG.optimizer, steps=10)
    state = TrainState(jnp.int32(step), parameters, optimizer.init(parameters))
    return jax.device_put(state, sharding.tree_shardings(state, mesh)), mesh


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path, CONFIG, keep_last=2)
    yield opened
    opened.close()


def test_what_is_saved_is_restored_on_another_mesh(checkpoints):
    state, _ = state_at(3)
    progress = Progress(Best(2, 0.1234567890123), {"label_overflow": 7}, evaluations_since_best=3)
    save_state(checkpoints, state, progress)
    checkpoints.wait()
    like, mesh = state_at(0, MeshConfig(data=1), value=0.0)
    restored, kept = restore_state(checkpoints, 3, like, mesh)
    assert kept == progress
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for found, expected, place in zip(jax.tree.leaves(restored), jax.tree.leaves(state), jax.tree.leaves(like)):
        np.testing.assert_array_equal(found, expected)
        assert found.sharding == place.sharding


def test_a_state_may_be_donated_as_soon_as_save_returns(checkpoints):
    state, mesh = state_at(1)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    save_state(checkpoints, state, Progress())
    for _ in range(5):
        state = overwrite(state)
    checkpoints.wait()
    restored, _ = restore_state(checkpoints, 1, state, mesh)
    assert (restored.parameters["tower"]["layers"][0]["up"]["kernel"] == 1).all()


def test_the_last_two_and_the_best_are_kept(checkpoints):
    best = None
    for step, metric in [(1, 0.2), (2, 0.9), (3, None), (4, 0.3), (5, None), (6, None)]:
        if metric is not None and (best is None or metric > best.metric):
            best = Best(step, metric)
        save_state(checkpoints, state_at(step)[0], Progress(best))
    checkpoints.wait()
    assert checkpoint.saved_steps(checkpoints.path) == {2, 5, 6}
    assert checkpoints.latest() == 6


def test_parameters_come_back_as_the_model_names_them(tmp_path, checkpoints):
    for step in (1, 2):
        save_state(checkpoints, state_at(step)[0], Progress(Best(1, 0.5)))
    checkpoints.wait()
    best, last = (checkpoint.restore_parameters(tmp_path, which=which) for which in ("best", "last"))
    assert (best["log_inverse_temperature"], last["log_inverse_temperature"]) == (1, 2)
    assert isinstance(best["tower"]["layers"][0]["up"]["kernel"], np.ndarray)
    assert (best["tower"]["layers"][1]["up"]["bias"] == np.arange(8)).all()
    assert checkpoint.best_step(tmp_path) == 1


def test_without_an_evaluation_the_last_is_the_best(tmp_path, checkpoints):
    for step in (1, 2):
        save_state(checkpoints, state_at(step)[0], Progress())
    checkpoints.wait()
    assert checkpoint.restore_parameters(tmp_path)["log_inverse_temperature"] == 2


def test_half_written_checkpoints_are_not_seen_and_are_removed(tmp_path, checkpoints):
    save_state(checkpoints, state_at(1)[0], Progress())
    checkpoints.wait()
    half = checkpoints.path / "2.orbax-checkpoint-tmp" / "parameters"
    half.mkdir(parents=True)
    (half / "data").write_bytes(b"half")
    assert checkpoint.saved_steps(checkpoints.path) == {1}
    assert checkpoint.restore_parameters(tmp_path)["log_inverse_temperature"] == 1
    again = Checkpoints(tmp_path, CONFIG, keep_last=2)
    assert again.latest() == 1
    assert not half.exists()
    again.close()


def test_no_checkpoint_is_an_error_that_says_so(tmp_path):
    with pytest.raises(InputError, match="no checkpoint in it yet"):
        checkpoint.restore_parameters(tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path, checkpoints):
    state, mesh = state_at(1)
    save_state(checkpoints, state, Progress())
    checkpoints.wait()
    for file in (checkpoints.path / "1" / "parameters").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"checkpoints/1: the checkpoint cannot be read"):
        restore_state(checkpoints, 1, state, mesh)
    with pytest.raises(InputError, match=r"the checkpoint cannot be read"):
        checkpoint.restore_parameters(tmp_path)


def test_a_checkpoint_without_any_one_of_its_files_is_named_or_is_whole(tmp_path, checkpoints):
    """TensorStore reads a chunk that is missing as zeros. What is restored is what was saved, or nothing is."""
    state, mesh = state_at(1)
    save_state(checkpoints, state, Progress())
    checkpoints.wait()
    named = 0
    for file in sorted(path for path in (checkpoints.path / "1").rglob("*") if path.is_file()):
        content = file.read_bytes()
        file.unlink()
        restored = None
        with suppress(InputError):
            restored, _ = restore_state(checkpoints, 1, state, mesh)
        named += restored is None
        if restored is not None:
            for found, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
                np.testing.assert_array_equal(found, expected)
        file.write_bytes(content)
    assert named >= 5
    restore_state(checkpoints, 1, state, mesh)


def reopened(tmp_path, config, state, mesh):
    """What a program with another configuration restores."""
    other = Checkpoints(tmp_path, config, keep_last=2)
    try:
        return restore_state(other, 1, state, mesh)[0]
    finally:
        other.close()


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, checkpoints):
    state, mesh = state_at(1)
    save_state(checkpoints, state, Progress())
    checkpoints.wait()
    other = CONFIG.replace(loss={"initial_temperature": 0.2})
    with pytest.raises(InputError, match=r"another configuration .*loss.initial_temperature: 0.1 there, 0.2 here"):
        reopened(tmp_path, other, state, mesh)
    metadata = checkpoints.path / "1" / "progress" / "metadata"
    stored = json.loads(metadata.read_text())
    stored["config"]["loss"]["initial_temperature"] = 0.2
    metadata.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"cannot be read .its configuration is not what was saved"):
        reopened(tmp_path, other, state, mesh)
    del stored["config"]
    metadata.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"checkpoints/1: the checkpoint cannot be read \(it has no config\); remove"):
        reopened(tmp_path, CONFIG, state, mesh)


def test_a_moving_average_is_kept_and_is_what_a_run_gives_away(tmp_path, checkpoints):
    state, mesh = state_at(1)
    state = state._replace(averaged_parameters=jax.tree.map(lambda leaf: leaf + 1, state.parameters))
    save_state(checkpoints, state, Progress())
    checkpoints.wait()
    restored, _ = restore_state(checkpoints, 1, state, mesh)
    for found, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert restored.final_parameters is restored.averaged_parameters
    assert checkpoint.restore_parameters(tmp_path)["log_inverse_temperature"] == 2


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), ValueError("INTERNAL: write failed: No space left on device [OS error 28]")],
)
def test_a_full_disk_is_a_named_failure_that_keeps_the_last_good_checkpoint(checkpoints, error, monkeypatch):
    save_state(checkpoints, state_at(1)[0], Progress())
    checkpoints.wait()

    def fails(*_, **__):
        (checkpoints.path / "2.orbax-checkpoint-tmp").mkdir()
        raise RuntimeError("save failed") from error

    monkeypatch.setattr(checkpoints._manager, "save", fails)
    with pytest.raises(NamedFailure, match=r"disk is full.*last good checkpoint is .*checkpoints/1; free some space"):
        save_state(checkpoints, state_at(2)[0], Progress())
    assert [entry.name for entry in checkpoints.path.iterdir()] == ["1"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), TimeoutError("Timed out after 86400 s")])
def test_a_disk_that_fails_is_a_named_failure_too(checkpoints, error, monkeypatch):
    save_state(checkpoints, state_at(1)[0], Progress())
    checkpoints.wait()

    def fails() -> None:
        raise error

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", fails)
    words = r"not written, because of an error \(.*\); the last good checkpoint is .*checkpoints/1; look at the disk"
    with pytest.raises(NamedFailure, match=words):
        checkpoints.wait()
    monkeypatch.undo()


def test_flipped_bits_are_seen_wherever_they_are_read(tmp_path, checkpoints):
    state, mesh = state_at(1)
    save_state(checkpoints, state, Progress())
    checkpoints.wait()
    file = checkpoints.path / "1" / "progress" / "metadata"
    stored = json.loads(file.read_text())
    name = "tower/layers/0/up/kernel"
    stored["checksums"]["parameters"][name] ^= 1
    file.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=rf"checkpoints/1: .*parameters {name} is not what was saved"):
        restore_state(checkpoints, 1, state, mesh)
    with pytest.raises(InputError, match=rf"parameters {name} is not what was saved"):
        checkpoint.restore_parameters(tmp_path)
    del stored["checksums"]
    file.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"checkpoints/1: the checkpoint cannot be read \(it has no checksums\); "):
        restore_state(checkpoints, 1, state, mesh)
    with pytest.raises(InputError, match=r"it has no checksums"):
        checkpoint.restore_parameters(tmp_path)
