"""The lexical discriminator: learning, calibration report, saving."""

import json

import numpy as np
import pytest

from crops_jax import discriminator
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.errors import InputError

COLOURS = ["red", "blue", "green", "black", "white", "pink", "grey", "brown", "gold", "teal"]
THINGS = ["shoes", "hat", "coat", "lamp", "chair", "phone"]
DOCUMENTS = [f"{colour} {thing} of good quality" for colour in COLOURS for thing in THINGS]


def pairs():
    """Each query with its document (1), one that shares a word (.5 in the graded form, else 0), and a stranger (0)."""
    queries, documents, targets = [], [], []
    for i, colour in enumerate(COLOURS):
        for j, thing in enumerate(THINGS):
            other = COLOURS[(i + 3) % len(COLOURS)]
            queries += [f"{colour} {thing}"] * 3
            documents += [DOCUMENTS[i * 6 + j], f"{other} {thing} of good quality", f"{other} {THINGS[j - 1]} here"]
            targets += [1.0, 0.5, 0.0]
    return queries, documents, np.array(targets)


@pytest.fixture(scope="module")
def fitted():
    queries, documents, targets = pairs()
    return LexicalDiscriminator.fit(queries, documents, targets, corpus=DOCUMENTS)


def test_it_orders_documents_by_how_well_they_answer(fitted):
    queries, documents, _ = pairs()
    scores = fitted.score(queries, documents).reshape(-1, 3)
    assert scores.dtype == np.float32
    assert (scores[:, 0] > scores[:, 1]).all()
    assert (scores[:, 1] > scores[:, 2]).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_it_reports_calibration_on_queries_it_was_not_fitted_on(fitted):
    report = fitted.report
    assert report["calibrated_on"] == "held-out queries"
    assert report["pairs"] == 180
    assert report["queries"] == 60
    assert 0 <= report["ece_after"] <= 1
    assert 0 <= report["ece_before"] <= 1


def test_fitting_is_deterministic_and_scores_do_not_depend_on_the_batch(fitted):
    queries, documents, targets = pairs()
    again = LexicalDiscriminator.fit(queries, documents, targets, corpus=iter(DOCUMENTS))
    np.testing.assert_array_equal(again.weights, fitted.weights)
    assert again.scaling == fitted.scaling
    together = fitted.score(queries, documents)
    backwards = fitted.score(queries[::-1], documents[::-1])[::-1]
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together[7:8], fitted.score(queries[7:8], documents[7:8]))


def test_few_queries_are_calibrated_on_themselves_and_that_is_said():
    one = LexicalDiscriminator.fit(["a b", "a b"], ["a b", "c"], np.array([1.0, 0.0]), corpus=["a b", "c"])
    assert one.report["calibrated_on"] == "the pairs it was fitted on"
    good, bad = one.score(["a b", "a b"], ["a b", "c"])
    assert good > bad


@pytest.mark.parametrize("targets", [[], [1.0], [0.5, 0.5]])
def test_one_target_is_nothing_to_learn_from(targets):
    with pytest.raises(InputError, match="same target"):
        LexicalDiscriminator.fit(["q"] * len(targets), ["d"] * len(targets), np.array(targets), corpus=["d"])


def test_scoring_nothing(fitted):
    assert fitted.score([], []).shape == (0,)


def test_saved_and_loaded_it_is_the_same_in_the_same_bytes(fitted, tmp_path):
    fitted.save(tmp_path / "a")
    fitted.save(tmp_path / "b")
    for file in ("discriminator.json", "corpus.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = discriminator.load(tmp_path / "a")
    queries, documents, _ = pairs()
    np.testing.assert_array_equal(loaded.score(queries, documents), fitted.score(queries, documents))
    assert loaded.report == fitted.report


def test_what_cannot_be_read_is_said(fitted, tmp_path):
    with pytest.raises(InputError, match="holds no discriminator"):
        discriminator.load(tmp_path)
    fitted.save(tmp_path)
    described = json.loads((tmp_path / "discriminator.json").read_text())
    (tmp_path / "corpus.npz").write_bytes((tmp_path / "corpus.npz").read_bytes()[:100])
    with pytest.raises(InputError, match="not a readable discriminator"):
        discriminator.load(tmp_path)
    for broken, message in [
        ({**described, "kind": "oracle"}, "oracle"),
        ({**described, "features": ["length"]}, "features"),
        ({**described, "weights": [1.0]}, "not a readable"),
        ([], "JSON object"),
    ]:
        fitted.save(tmp_path)
        (tmp_path / "discriminator.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match=message):
            discriminator.load(tmp_path)
    (tmp_path / "discriminator.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        discriminator.load(tmp_path)
