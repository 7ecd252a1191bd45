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
