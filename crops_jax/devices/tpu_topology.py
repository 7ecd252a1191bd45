"""The chips of a TPU slice that is not attached: to compile for, not to run on. Needs libtpu, and no TPU."""

import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from crops_jax.errors import InputError, one_line

TOPOLOGIES = ("v4:8x8x8", "v5e:16x16", "v5p:8x8x8", "v5p:16x20x28", "v6e:16x16")
"""Slices for which compiling was tried; others of the same generations may be named too."""

# libtpu would otherwise look for the chips of this machine, ask a server in the cloud what they are, and refuse to be
# loaded twice.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
# What TPU_ACCELERATOR_TYPE calls a generation, how many of its units (cores, where a chip has two) a chip counts as,
# and how many axes a slice has.
_GENERATIONS = {"v4": ("v4", 2, 3), "v5e": ("v5litepod", 1, 2), "v5p": ("v5p", 2, 3), "v6e": ("v6e", 1, 2)}


def slice_devices(topology: str) -> list[Any]:
    """The devices of a slice such as "v5e:16x16", in the order of libtpu.

    Sets environment variables that libtpu reads, so it must be called before JAX is used.

    Raises InputError when there is no such slice, and where libtpu is not installed.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
    generation, shape = found.groups() if found else ("", "")
    sizes = [int(size) for size in shape.split("x")] if shape else []
    known = _GENERATIONS.get(generation)
    if known is None or len(sizes) != known[2] or not all(sizes):
        raise InputError(f"--topology {topology}: {_known()}")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('libtpu, the compiler for TPUs, is not installed; install it with pip install "jax[tpu]"')
    name, units, _ = known
    os.environ.update(_ENVIRONMENT, TPU_ACCELERATOR_TYPE=f"{name}-{units * math.prod(sizes)}")
    jax.config.update("jax_platforms", "cpu")
    # Both cores of a chip are one device, as on an attached slice.
    cores = {"chip_config_name": "megacore"} if units > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **cores).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"--topology {topology}: libtpu knows no such slice ({one_line(error)}); {_known()}"
        ) from error


def _known() -> str:
    return f"a slice is GENERATION:SHAPE with one of {', '.join(_GENERATIONS)}, such as {', '.join(TOPOLOGIES)}"
