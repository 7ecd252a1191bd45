"""Known values: trained weights and the checksums of runs depend on each."""

import jax.numpy as jnp

from crops_jax.devices.hashing import finalised, murmur3, token_words


def test_murmur3_and_its_finaliser():
    words = jnp.array([0, 1, -1]), jnp.array([0, 2, 3])
    assert murmur3(*words, seed=2).tolist() == [0xA1CBA8CE, 0x60F59722, 0x24B214D8]
    assert murmur3(jnp.array([7]), seed=0).tolist() == [0x501A90F1]
    assert finalised(jnp.array([0, 1, 0xFFFFFFFF], jnp.uint32)).tolist() == [0, 0x514E28B7, 0x81F16F39]


def test_tokens_of_a_query():
    tokens = jnp.array([[5, 9, -1], [9, 5, -1], [0, 0, 0]], jnp.int32)
    assert token_words(tokens).tolist() == [[-1799169199, -254119707], [1386542341, 126175595], [0, 0]]
