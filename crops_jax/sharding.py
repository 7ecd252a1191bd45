"""The device mesh, and which parameter is split along which of its axes: one table.

Axes: "data" splits batches, "model" splits matrices (tensor parallelism after Megatron-LM, arXiv 1909.08053: the first
matrix of a pair by columns, the second by rows, so that one sum over "model" ends each block).
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from crops_jax.config import MeshConfig
from crops_jax.errors import InputError

# The first rule that matches the end of a parameter's path decides; what none matches is replicated. Moments of the
# optimiser carry the path of their parameter, so the table holds for them too.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"token_embedding/embedding$", PartitionSpec("model", None)),
    (r"attention/(query|key|value)/kernel$", PartitionSpec(None, "model")),
    (r"attention/(query|key|value)/bias$", PartitionSpec("model")),
    (r"attention/output/kernel$", PartitionSpec("model", None)),
    (r"feed_forward/(gate|up)/kernel$", PartitionSpec(None, "model")),
    (r"feed_forward/(gate|up)/bias$", PartitionSpec("model")),
    (r"feed_forward/down/kernel$", PartitionSpec("model", None)),
)


def make_mesh(config: MeshConfig, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of config.data x config.model devices; the first ones where more are there.

    Raises InputError when there are too few devices, or when -1 cannot be resolved without a rest.
    """
    devices = jax.devices() if devices is None else devices
    data, model = config.data, config.model
    if -1 in (data, model):
        name, given = ("model", model) if data == -1 else ("data", data)
        if len(devices) % given:
            raise InputError(
                f"mesh.{name} is {given}, which does not divide the {len(devices)} devices; choose a divisor, or give "
                "both axes"
            )
        data, model = (len(devices) // given, given) if data == -1 else (given, len(devices) // given)
    if data * model > len(devices):
        raise InputError(
            f"mesh.data x mesh.model = {data} x {model} needs {data * model} devices and {len(devices)} are here; make "
            "the mesh smaller"
        )
    grid = np.asarray(devices[: data * model]).reshape(data, model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for each array (or ShapeDtypeStruct) of a tree of parameters or optimiser state, by RULES.

    A dimension that the mesh axis does not divide is replicated.
    """

    def of(path: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _fitting(_rule(path_name(path), len(leaf.shape)), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First dimension over "data"; every process holds its own rows."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def path_name(path: tuple) -> str:
    """A tree path as "tower/layers/0/attention/query/kernel"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _rule(name: str, dimensions: int) -> PartitionSpec:
    for pattern, spec in RULES:
        if re.search(pattern, name) and len(spec) == dimensions:
            return spec
    return PartitionSpec()


def _fitting(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    return PartitionSpec(
        *(axis if axis is None or size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, shape))
    )
