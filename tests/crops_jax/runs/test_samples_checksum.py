from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.runs.checksums import batch_checksum


class Samples(NamedTuple):
    query_tokens: np.ndarray
    document_ids: np.ndarray


def samples(seed=0):
    random = np.random.default_rng(seed)
    ids = random.integers(-(2**31), 2**31, (16, 2)).astype(np.int32)
    return Samples(random.integers(-1, 40, (8, 5)).astype(np.int32), ids)


def mixed(word):
    word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
    word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
    return word ^ (word >> 16)


def by_hand(batch, step):
    words = [int(word) % 2**32 for array in batch for word in array.ravel()]
    return (2 * step + 1) * sum((2 * i + 1) * mixed(word) for i, word in enumerate(words)) % 2**32


checksum = jax.jit(batch_checksum)


def test_it_is_the_sum_by_hand_whatever_the_mesh():
    batch = samples()
    for step in (0, 1, 123_456):
        assert int(checksum(batch, jnp.int32(step))) % 2**32 == by_hand(batch, step)
    place = sharding.batch_sharding(sharding.make_mesh(MeshConfig(data=4, model=2)))
    assert int(checksum(jax.device_put(batch, place), jnp.int32(3))) % 2**32 == by_hand(batch, 3)


def test_other_samples_order_or_step_change_it():
    batch = samples()
    sums = {int(checksum(batch, jnp.int32(step))) for step in range(10)}
    sums |= {int(checksum(samples(seed), jnp.int32(0))) for seed in range(1, 10)}
    swapped = Samples(batch.query_tokens[[1, 0, *range(2, 8)]], batch.document_ids[[2, 3, 0, 1, *range(4, 16)]])
    assert len(sums | {int(checksum(swapped, jnp.int32(0)))}) == 20
