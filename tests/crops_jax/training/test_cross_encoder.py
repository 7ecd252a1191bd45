"""Training a cross-encoder: it learns, resumes bit for bit, and names what stops it."""

import os
import signal

import jax
import numpy as np
import pytest

from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.discriminator.auc import graded_auc
from crops_jax.discriminator.cross_encoder import CrossEncoderDiscriminator
from crops_jax.discriminator.report import calibrate
from crops_jax.discriminator.slices import CROSS_ENCODER, slices
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.models.cross_encoder import from_parameters
from crops_jax.runs import checkpoints
from crops_jax.runs.log import TIMING_FIELDS, read_goodput, read_metrics
from crops_jax.text import tokenizer
from crops_jax.text.pair_tokens import TokenizedPairs
from crops_jax.training import cross_encoder
from tests.tiny_pairs import CONFIG, tiny_tokenizer, toy_pairs

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer")
    queries, documents, targets = toy_pairs()
    return TokenizedPairs(queries, documents, tokenizer=tokenizer.load(folder), max_tokens=8), targets


@pytest.fixture(scope="module")
def uninterrupted(pairs, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return run, cross_encoder.train(CONFIG, *pairs, run=run)


def assert_same(run, parameters, uninterrupted):
    for one, other in zip(jax.tree.leaves(parameters), jax.tree.leaves(uninterrupted[1]), strict=True):
        np.testing.assert_array_equal(one, other)
    lines = [
        [{name: line[name] for name in line if name not in TIMING_FIELDS} for line in read_metrics(path)]
        for path in (run, uninterrupted[0])
    ]
    assert lines[0] == lines[1]


def stop_before(step, monkeypatch, act):
    """Calls `act` when the batch of `step` is asked for."""
    original = cross_encoder.pair_batches

    def batches(*arguments, start_step, **rest):
        for number, batch in enumerate(original(*arguments, start_step=start_step, **rest)):
            if start_step + number + 1 == step:
                act()
            yield batch

    monkeypatch.setattr(cross_encoder, "pair_batches", batches)


def test_a_run_leaves_lines_and_checkpoints(uninterrupted):
    run, _ = uninterrupted
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == list(range(10, 121, 10))
    assert {"loss", "temperature", "learning_rate", "examples_per_second", "grad_norm"} <= lines[0].keys()
    assert checkpoints.saved_steps(run / "checkpoints") == {100, 120}
    start, *others = read_goodput(run)
    assert start["event"] == "start"
    stretches = [line for line in others if line.get("event") != "first_step"]
    assert stretches[0]["compilation_seconds"] > 0
    assert sum(stretch["input_wait_seconds"] for stretch in stretches) > 0


def test_a_finished_run_is_left_alone(uninterrupted, pairs):
    run, _ = uninterrupted
    before = (run / "metrics.jsonl").read_bytes()
    assert_same(run, cross_encoder.train(CONFIG, *pairs, run=run), uninterrupted)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_on_a_cpu_a_step_starts_when_the_one_before_has_ended(pairs, tmp_path, monkeypatch):
    original, ended = cross_encoder.make_pair_step, []

    def make_pair_step(*arguments, **rest):
        step = original(*arguments, **rest)

        def watched(state, batch):
            ended.append(state.step.is_ready())
            return step(state, batch)

        return watched

    monkeypatch.setattr(cross_encoder, "make_pair_step", make_pair_step)
    cross_encoder.train(CONFIG.replace(training={"steps": 30}), *pairs, run=tmp_path)
    assert len(ended) == 30
    assert all(ended)


@pytest.mark.parametrize("step", [12, 35])
def test_a_crash_leaves_no_trace(uninterrupted, pairs, tmp_path, monkeypatch, step):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    with monkeypatch.context() as patch:
        stop_before(step, patch, crash)
        with pytest.raises(Crash):
            cross_encoder.train(CONFIG, *pairs, run=tmp_path)
    assert_same(tmp_path, cross_encoder.train(CONFIG, *pairs, run=tmp_path), uninterrupted)


def test_a_signal_saves_a_checkpoint_of_the_step_under_way(uninterrupted, pairs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_before(27, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="interrupted at step 27 of 120; a checkpoint is saved"):
            cross_encoder.train(CONFIG, *pairs, run=tmp_path)
    assert max(checkpoints.saved_steps(tmp_path / "checkpoints")) == 27
    assert_same(tmp_path, cross_encoder.train(CONFIG, *pairs, run=tmp_path), uninterrupted)


def test_a_loss_that_is_not_finite_names_step_and_last_good_checkpoint(pairs, tmp_path, monkeypatch):
    def spoil():
        pairs[1][:] = np.nan

    kept = pairs[1].copy()
    stop_before(26, monkeypatch, spoil)
    try:
        with pytest.raises(NamedFailure, match=r"step 27: loss is nan.*last good checkpoint is .*checkpoints/20"):
            cross_encoder.train(CONFIG, *pairs, run=tmp_path)
    finally:
        pairs[1][:] = kept


@pytest.mark.slow
def test_devices_change_no_loss(uninterrupted, pairs, tmp_path):
    cross_encoder.train(CONFIG.replace(mesh={"data": 8}), *pairs, run=tmp_path)
    losses, expected = ([line["loss"] for line in read_metrics(run)] for run in (tmp_path, uninterrupted[0]))
    # The same function: sums of another order change the last digits. Each step multiplies them, some thousandfold by
    # step 70, as it does those of another compiler.
    np.testing.assert_allclose(losses[:3], expected[:3], rtol=1e-5)
    np.testing.assert_allclose(losses, expected, rtol=1e-2)


def test_a_batch_that_the_mesh_cannot_split_is_refused():
    with pytest.raises(InputError, match="not a multiple of the mesh's data x fsdp, 8"):
        cross_encoder.check_machine(CONFIG.replace(mesh={"data": 8}, pairs={"pairs_per_batch": 12}))


def test_steps_follow_from_epochs():
    by_epochs = CONFIG.replace(training={"steps": 0, "epochs": 1.5})
    assert cross_encoder.total_steps(33, by_epochs) == 5
    assert cross_encoder.total_steps(33, CONFIG) == 120


def test_it_learns_what_shared_words_do_not_show_and_is_calibrated_on_other_queries(tmp_path):
    folder = tiny_tokenizer(tmp_path / "tokenizer")
    queries, documents, targets = toy_pairs(1500)
    parts = slices(queries, targets, CROSS_ENCODER)
    assert parts.apart
    names = np.array(queries)
    assert not set(names[parts.train]) & set(names[parts.temperature | parts.measure])
    assert parts.train.sum() + parts.temperature.sum() + parts.measure.sum() == 1500
    train = np.flatnonzero(parts.train).tolist()
    texts = [queries[i] for i in train], [documents[i] for i in train]
    pairs = TokenizedPairs(*texts, tokenizer=tokenizer.load(folder), max_tokens=8)
    parameters = cross_encoder.train(CONFIG, pairs, targets[train], run=tmp_path)
    losses = [line["loss"] for line in read_metrics(tmp_path)]
    assert losses[-1] < losses[0] - 0.1
    theta = CrossEncoderDiscriminator(
        from_parameters(CONFIG.encoder, parameters), config=CONFIG.encoder, max_tokens=8, tokenizer_folder=folder
    )
    lexical = LexicalDiscriminator.fit(*texts, targets[train], corpus=documents)
    report = calibrate(theta, queries, documents, targets, parts=parts, lexical=lexical)
    assert report is theta.report
    assert report["auc"]["cross_encoder"]["value"] > 0.9
    assert report["auc"]["difference"]["low"] > 0
    assert report["calibrated_on"] == "held-out queries"
    assert (report["temperature"], report["bias"]) == theta.scaling
    rest = np.flatnonzero(~parts.train).tolist()
    assert report["held_out_pairs"] == len(rest)
    scores = theta.score([queries[i] for i in rest], [documents[i] for i in rest])
    assert report["auc"]["cross_encoder"]["value"] == pytest.approx(graded_auc(scores, targets[rest]), abs=1e-3)
    assert [row["alpha"] for row in report["alpha_sweep"]] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for row in report["alpha_sweep"]:
        assert row["passing"] == (scores > row["alpha"]).sum()
    assert report["ece_after"] < 0.1
