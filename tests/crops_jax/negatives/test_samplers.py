"""What every sampler holds: never a positive or padding, each at most once, the same key the same draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from crops_jax.negatives import Candidates, SimAns, TriSampler, UniformSampler
from tests.crops_jax.losses.test_over_devices import mesh_of
from tests.crops_jax.negatives.cases import candidates, drawn, many_draws

SAMPLERS = [UniformSampler(top=30), SimAns(a=0.5, b=-1.0), TriSampler(first_stage=8)]


def random_candidates(seed=0, *, queries=64, size=20) -> Candidates:
    """Queries with 0 to 20 documents, of which about a third are positives and the best of all; the rest is padding."""
    random = np.random.default_rng(seed)
    score = random.normal(size=(queries, size)).astype(np.float32)
    is_document = np.arange(size) < random.integers(0, size + 1, (queries, 1))
    is_positive = random.random((queries, size)) < 0.3
    to_positive = (score + random.normal(size=score.shape)).astype(np.float32)
    # Positives would be drawn by every formula, and padding would spoil it.
    score[is_positive] = 0.0
    to_positive[is_positive] = 100.0
    score[~is_document] = random.choice([np.nan, np.inf, -np.inf], (~is_document).sum())
    to_positive[~is_document] = np.nan
    return Candidates(*map(jnp.asarray, (score, np.zeros(queries, np.float32), to_positive, is_document, is_positive)))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 5, 30])
def test_what_is_drawn_is_a_negative_and_drawn_once(sampler, count):
    given = random_candidates()
    is_negative = np.asarray(given.is_document & ~given.is_positive)
    found = np.asarray(drawn(sampler, given, jax.random.key(1), count=count))
    assert found.shape == (64, count)
    most = min(count, sampler.first_stage) if isinstance(sampler, TriSampler) else count
    numbers = set()
    for row, places in enumerate(found):
        present = places[places >= 0]
        assert is_negative[row, present].all()
        assert len(set(present.tolist())) == len(present) == min(most, is_negative[row].sum())
        # Missing ones stand at the end.
        assert (places[len(present) :] == -1).all()
        numbers.add(len(present))
    assert min(numbers) == 0
    assert max(numbers) == min(most, is_negative.sum(axis=1).max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_key_gives_the_same_draw(sampler):
    given = random_candidates(2)
    one, again, other = (drawn(sampler, given, jax.random.key(seed), count=3) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) != np.asarray(other)).any()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_key_gives_the_same_draw_on_eight_devices(sampler):
    given = random_candidates(3)
    split = jax.device_put(given, NamedSharding(mesh_of(8), PartitionSpec("data")))
    one, eight = (drawn(sampler, each, jax.random.key(5), count=3) for each in (given, split))
    np.testing.assert_array_equal(one, eight)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_key_ever_draws_a_positive(sampler):
    one = candidates([0.0, 0.1, -0.2, 3.0], to_positive=[9.0, 9.0, -1.0, -1.0], positives=[0, 1])
    assert set(many_draws(sampler, one, count=2).ravel().tolist()) == {2, 3}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_any_candidates_all_are_missing(sampler):
    assert (np.asarray(sampler(candidates([]), jax.random.key(0), count=2)) == -1).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_of_none_is_refused(sampler):
    with pytest.raises(ValueError, match="count must be at least 1, found 0"):
        sampler(candidates([0.0]), jax.random.key(0), count=0)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: UniformSampler(top=0), "top must be at least 1, found 0"),
        (lambda: SimAns(a=0.0), "a must be positive and finite"),
        (lambda: SimAns(a=float("inf")), "a must be positive and finite"),
        (lambda: SimAns(b=float("nan")), "b must be finite"),
        (lambda: TriSampler(first_stage=0), "first_stage must be at least 1"),
        (lambda: TriSampler(scale=-1.0), "scale must be positive and finite"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
