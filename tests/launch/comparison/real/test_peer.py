"""The peer: the reasons for its absence, its command, and the order of its pairs."""

import random
import sys
from pathlib import Path

import pytest

from benchmarks.train_sentence_transformers import batches_without_duplicates, parse, plan
from launch.comparison.real.peer import Peer, peer_absence
from launch.comparison.real.settings import real_set

PAIRS = [(f"query {number // 2}", f"document {number % 7}") for number in range(60)]


def test_an_absent_environment_is_a_reason(tmp_path):
    script = tmp_path / "script.py"
    assert "checkout" in peer_absence(python=Path(sys.executable), script=script)
    script.touch()
    assert peer_absence(python=tmp_path / "python", script=script) == "there is no .venv-peers; make peers makes it"


def test_the_command_has_the_settings_of_the_set():
    peer = Peer(settings=real_set("bestbuy"), weights="folder", pairs=Path("pairs.parquet"), steps=0)
    step = peer.step("train", Path("trained"), factor=0.5, seed=2)
    assert [Path(word).name for word in step.command[:2]] == ["python", "train_sentence_transformers.py"]
    parsed = parse(step.arguments)
    assert (parsed.epochs, parsed.steps, parsed.batch, parsed.max_tokens) == (3.0, 0, 64, 64)
    assert (parsed.learning_rate, parsed.seed, parsed.output) == (2.5e-5, 2, "trained")
    limited = Peer(**vars(peer) | {"steps": 5}).step("train", Path("trained"), factor=1.0, seed=0)
    assert parse(limited.arguments).steps == 5
    assert not [word for word in peer.settings_of(factor=1.0, seed=0) if word in ("folder", "pairs.parquet")]


def test_an_epoch_has_every_pair_once_and_no_text_twice_in_a_batch():
    batches = list(batches_without_duplicates(PAIRS, batch=4, generator=random.Random(0)))
    assert sorted(index for chosen in batches for index in chosen) == list(range(60))
    for chosen in batches:
        texts = [text for index in chosen for text in PAIRS[index]]
        assert len(set(texts)) == len(texts)
        assert 1 <= len(chosen) <= 4
    assert [len(chosen) for chosen in batches[:10]] == [4] * 10


@pytest.mark.parametrize(("epochs", "presented"), [(1.0, 60), (2.0, 120), (0.5, 30)])
def test_the_plan_presents_the_epochs(epochs, presented):
    batches = plan(PAIRS, batch=4, epochs=epochs, steps=0, seed=0)
    assert presented <= sum(map(len, batches)) < presented + 4
    assert batches == plan(PAIRS, batch=4, epochs=epochs, steps=0, seed=0)
    assert batches != plan(PAIRS, batch=4, epochs=epochs, steps=0, seed=1)


def test_steps_decide_if_they_are_given():
    assert len(plan(PAIRS, batch=4, epochs=1.0, steps=37, seed=0)) == 37
