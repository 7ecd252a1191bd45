"""Packed values: lossless for float32, small enough to be committed, and refused when they are damaged."""

import base64
import zlib

import numpy as np
import pytest

from launch.comparison.results.packed_values import pack, unpack


def content(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def test_the_layout_by_hand():
    half, one = np.float32(0.5).tobytes(), np.float32(1).tobytes()
    assert content(pack([1.0, 0.5, 1.0])) == b"\2\0\0\0" + half + one + b"\1\0\1"
    assert unpack(pack([1.0, 0.5, 1.0])) == (1.0, 0.5, 1.0)


def test_more_than_256_different_values_have_positions_of_two_bytes():
    values = np.arange(300, dtype=np.float32)
    assert content(pack(values.tolist()))[-600:] == bytes(n % 256 for n in range(300)) + b"\0" * 256 + b"\1" * 44


@pytest.mark.parametrize("different", [1, 2, 255, 256, 257, 5000])
def test_values_are_read_as_they_were_packed(different):
    generator = np.random.default_rng(different)
    drawn = generator.random(different, np.float32)
    values = np.concatenate([drawn, generator.choice(drawn, 100)]).astype(np.float64).tolist()
    assert unpack(pack(values)) == tuple(values)


def test_no_values_and_too_many():
    assert unpack(pack([])) == ()
    with pytest.raises(ValueError, match="at most 65,536 different values"):
        pack(np.linspace(0, 1, 65_537).tolist())


def test_recall_of_ten_thousand_queries_takes_about_a_byte_and_a_half_each():
    """A query has 1 to 40 relevant documents, of which six in ten are found; plain JSON would take 20 bytes each."""
    generator = np.random.default_rng(0)
    relevant = generator.integers(1, 41, 10_000)
    values = generator.binomial(relevant, 0.6) / relevant
    assert len(pack(values.tolist())) < 16_000


@pytest.mark.parametrize(
    "text",
    [
        "not base64!",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"\2\0\0\0" + b"\0" * 4)).decode(),
        base64.b64encode(zlib.compress(b"\1\0\0\0" + b"\0" * 4 + b"\1")).decode(),
        base64.b64encode(zlib.compress(b"\0\0\0\0" + b"\0")).decode(),
        pack([float(n) for n in range(300)])[:-8],
    ],
)
def test_damaged_text_is_refused(text):
    with pytest.raises(ValueError, match="damaged"):
        unpack(text)
