"""The chips of a TPU slice that is not attached to this machine.

Programs can be compiled for them, but not run on them. This needs libtpu, and no TPU.
"""

import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from crops_jax.errors import InputError, one_line

TOPOLOGIES = ("v4:8x8x8", "v5e:16x16", "v5p:8x8x8", "v5p:16x20x28", "v6e:16x16")
"""The slices for which compiling was tried. Other slices of the same generations can be named too."""

# Without these, libtpu looks for the chips of this machine, queries a server in the cloud about them, and refuses to be
# loaded twice.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
# For each generation: its name in TPU_ACCELERATOR_TYPE, the number of units that a chip counts as there (its cores,
# when a chip has two), and the number of axes of a slice.
_GENERATIONS = {"v4": ("v4", 2, 3), "v5e": ("v5litepod", 1, 2), "v5p": ("v5p", 2, 3), "v6e": ("v6e", 1, 2)}
_TWO_AXES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
"""The slices that Google has of the generations with two axes."""
_THREE_AXES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
"""The slices of less than a cube of 4x4x4 chips that Google has of the generations with three axes."""
_CUBE_AXIS = 4
_MOST_CHIPS = {"v4": 4096, "v5p": 6144}
_LONGEST_AXIS = 256


def accelerator_type(topology: str) -> str:
    """Returns the accelerator type of a slice: "v5litepod-256" for "v5e:16x16".

    Raises InputError when there is no such slice.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
    generation, shape = match.groups() if match else ("", "")
    sizes = [int(size) for size in shape.split("x")] if shape else []
    properties = _GENERATIONS.get(generation)
    if properties is None or len(sizes) != properties[2] or not all(sizes):
        raise InputError(f"--topology {topology}: {_rule()}")
    if len(sizes) == 2 and shape not in _TWO_AXES:
        raise InputError(f"--topology {topology}: the slices of {generation} are {', '.join(_TWO_AXES)}")
    name, units, _ = properties
    return f"{name}-{units * math.prod(sizes)}"


def offered_type(topology: str) -> str:
    """Returns the accelerator type of a slice that Google offers. libtpu can compile for further ones.

    The slices with three axes are those of Google's pages https://cloud.google.com/tpu/docs/types-topologies (v4: axes
    that ascend, all of them multiples of 4 above a cube; the default of a number of chips is the shape most like a
    cube), https://cloud.google.com/tpu/docs/v4 (at most 4096 chips) and https://cloud.google.com/tpu/docs/v5p (at most
    6144 chips). The limit of one axis is that of github.com/AI-Hypercomputer/xpk, Google's program for such slices. v4
    can be asked for by its shape; v5p only by its number of cores, which gives the default shape.

    Raises InputError when Google offers no such slice.
    """
    kind = accelerator_type(topology)
    generation, _, shape = topology.partition(":")
    if generation not in _MOST_CHIPS:
        return kind
    sizes = [int(size) for size in shape.split("x")]
    offered = _offered_shapes(math.prod(sizes), at_most=_MOST_CHIPS[generation])
    if not offered or (generation == "v4" and shape not in offered):
        raise InputError(
            f"--topology {topology}: Google offers no such slice; those of {generation} are {', '.join(_THREE_AXES)}, "
            f"and AxBxC with A <= B <= C, each a multiple of {_CUBE_AXIS} and {_LONGEST_AXIS} at most, and "
            f"{_MOST_CHIPS[generation]} chips at most"
        )
    if generation == "v5p" and shape != offered[0]:
        raise InputError(
            f"--topology {topology}: {math.prod(sizes)} chips of v5p are asked for by their number, and Google gives "
            f"them the shape {offered[0]}; ask for v5p:{offered[0]}"
        )
    return kind


def _offered_shapes(chips: int, *, at_most: int) -> list[str]:
    """Returns the shapes with three axes that Google has of a number of chips, with the one most like a cube first."""
    if chips > at_most:
        return []
    axes = range(_CUBE_AXIS, _LONGEST_AXIS + 1, _CUBE_AXIS)
    whole = [(a, b, chips // (a * b)) for a in axes for b in axes if chips % (a * b) == 0]
    cubes = sorted((shape for shape in whole if shape[0] <= shape[1] <= shape[2] and shape[2] in axes), key=sum)
    small = [shape for shape in _THREE_AXES if math.prod(map(int, shape.split("x"))) == chips]
    return small + ["x".join(map(str, shape)) for shape in cubes]


def slice_devices(topology: str, *, slices: int = 1) -> list[Any]:
    """Returns the devices of one or more slices such as "v5e:16x16", in the order of libtpu.

    It sets environment variables that libtpu reads, so it must be called before JAX is used.

    Raises InputError when there is no such slice, and when libtpu is not installed.
    """
    if slices < 1:
        raise InputError(f"--slices {slices}: there must be at least one slice")
    kind = accelerator_type(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('libtpu, the compiler for TPUs, is not installed; install it with pip install "jax[tpu]"')
    os.environ.update(_ENVIRONMENT, TPU_ACCELERATOR_TYPE=kind)
    jax.config.update("jax_platforms", "cpu")
    # This makes both cores of a chip one device, as on an attached slice.
    units = _GENERATIONS[topology.partition(":")[0]][1]
    options: dict[str, Any] = {"chip_config_name": "megacore"} if units > 1 else {}
    if slices > 1:
        options["num_slices"] = slices
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise InputError(f"--topology {topology}: libtpu knows no such slice ({one_line(error)}); {_rule()}") from error


def _rule() -> str:
    return f"a slice is GENERATION:SHAPE with one of {', '.join(_GENERATIONS)}, such as {', '.join(TOPOLOGIES)}"
