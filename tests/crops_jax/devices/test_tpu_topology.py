"""The slices that Google offers, which are fewer than those that libtpu compiles for."""

import pytest

from crops_jax.devices.tpu_topology import TOPOLOGIES, accelerator_type, offered_type
from crops_jax.errors import InputError

V5P = {
    8: "2x2x1",
    16: "2x2x2",
    32: "2x2x4",
    64: "2x4x4",
    128: "4x4x4",
    256: "4x4x8",
    384: "4x4x12",
    512: "4x8x8",
    640: "4x4x20",
    1024: "8x8x8",
    1152: "4x12x12",
    1536: "8x8x12",
    1920: "4x12x20",
    2048: "8x8x16",
    2304: "8x12x12",
    3072: "8x12x16",
    3456: "12x12x12",
    4096: "8x16x16",
    4608: "12x12x16",
    6144: "12x16x16",
    6272: "4x28x28",
    6912: "12x12x24",
    8192: "16x16x16",
    8448: "8x12x44",
    8960: "8x20x28",
    10368: "12x12x36",
    11520: "12x20x24",
    12160: "4x20x76",
    12288: "16x16x24",
}
"""The shape that Google gives to v5p-N: its page on v5p, and the table of github.com/apple/axlearn."""


@pytest.mark.parametrize(("cores", "shape"), V5P.items())
def test_a_number_of_chips_of_v5p_has_one_shape(cores, shape):
    assert offered_type(f"v5p:{shape}") == f"v5p-{cores}"


@pytest.mark.parametrize(
    ("shape", "right"),
    [("4x2x2", "2x2x4"), ("1x2x2", "2x2x1"), ("4x4x32", "8x8x8"), ("8x4x4", "4x4x8"), ("8x16x48", "16x16x24")],
)
def test_another_shape_of_v5p_is_refused_with_the_one_that_google_gives(shape, right):
    with pytest.raises(InputError, match=rf"Google gives them the shape {right}; ask for v5p:{right}"):
        offered_type(f"v5p:{shape}")


@pytest.mark.parametrize(
    "topology",
    [
        *("v4:3x5x7", "v4:1x1x1", "v4:4x2x2", "v4:8x4x4", "v4:4x4x6", "v4:04x4x4", "v4:16x16x20", "v4:2x2x8"),
        *("v5p:1x1x1", "v5p:3x5x7", "v5p:2x2x8192", "v5p:16x20x28", "v5p:4x4x268"),
    ],
)
def test_a_slice_that_google_does_not_offer_is_refused_and_can_be_compiled_for(topology):
    with pytest.raises(InputError, match=r"Google offers no such slice; those of v\w+ are 2x2x1, 2x2x2, 2x2x4, 2x4x4"):
        offered_type(topology)
    assert accelerator_type(topology)


@pytest.mark.parametrize("topology", ["v4:2x2x1", "v4:2x4x4", "v4:4x4x8", "v4:4x16x16", "v4:16x16x16", "v5e:4x8"])
def test_v4_has_more_than_one_shape_of_a_number_of_chips(topology):
    assert offered_type(topology) == accelerator_type(topology)


def test_the_named_slices_are_offered_but_the_whole_pod_of_v5p():
    for topology in TOPOLOGIES:
        if topology != "v5p:16x20x28":
            assert offered_type(topology) == accelerator_type(topology)
