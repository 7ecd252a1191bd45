"""The device mesh, and which parameter is split along which of its axes: two tables.

Axes of the mesh:

    data    splits batches
    fsdp    splits batches too, and parameters with their moments; a layer's parameters are gathered where they are used
            and their gradients summed and scattered (ZeRO, arXiv 1910.02054)
    model   splits matrices (tensor parallelism after Megatron-LM, arXiv 1909.08053: the first matrix of a pair by
            columns, the second by rows, so that one sum over "model" ends each block)

LOGICAL_AXES says what the dimensions of a parameter are, MESH_AXES where a dimension of that kind lies.
"""

import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    get_abstract_mesh,
    use_abstract_mesh,
)
from jaxtyping import Array, Float

from crops_jax.config import MeshConfig
from crops_jax.errors import InputError

AXES = ("data", "fsdp", "model")

DATA_AXES = ("data", "fsdp")
"""Axes that batches are split over."""

# The first row that matches the end of a parameter's path and has as many dimensions decides; what none matches is
# replicated: vectors, for the most part. Moments of the optimiser carry the path of their parameter, so the table holds
# for them too.
LOGICAL_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"token_embedding/embedding$", ("vocabulary", "width")),
    (r"attention/(query|key|value)/kernel$", ("width", "heads")),
    (r"attention/(query|key|value)/bias$", ("heads",)),
    (r"attention/output/kernel$", ("heads", "width")),
    (r"feed_forward/(gate|up)/kernel$", ("width", "feed_forward")),
    (r"feed_forward/(gate|up)/bias$", ("feed_forward",)),
    (r"feed_forward/down/kernel$", ("feed_forward", "width")),
    (r"feature_tables/\w+/embedding$", ("vocabulary", "width")),
)

MESH_AXES = {
    "vocabulary": "model",
    "width": "fsdp",
    "heads": "model",
    "feed_forward": "model",
}


def make_mesh(config: MeshConfig, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of config.data x config.fsdp x config.model devices; the first ones where more are there.

    On TPUs the axes are laid along the links between the chips.

    Raises InputError when there are too few devices, or when -1 cannot be resolved without a rest.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _axis_sizes(config, len(devices))
    grid = mesh_utils.create_device_mesh(shape, devices[: math.prod(shape)], allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_groups(mesh: Mesh | AbstractMesh) -> int:
    """Parts into which a batch is split, each of them on one device, or on several along "model"."""
    return math.prod(mesh.shape[axis] for axis in DATA_AXES)


def own_groups(mesh: Mesh) -> tuple[int, ...]:
    """The groups of a batch that lie on devices of this process, ascending.

    They need not be neighbours. Where "model" reaches over processes, several of them hold the same groups.
    """
    found = batch_sharding(mesh).addressable_devices_indices_map((num_groups(mesh),)).values()
    return tuple(sorted({index[0].start or 0 for index in found if index is not None}))


def check_batch(size: int, mesh: Mesh, *, flag: str) -> None:
    """Raises InputError when the groups of a mesh do not divide a batch. flag: the argument that gives its size."""
    if size % (groups := num_groups(mesh)):
        raise InputError(
            f"{flag} {size} is not a multiple of the mesh's data x fsdp, {groups}; choose another one, or --mesh.data"
        )


def check_processes(mesh: Mesh) -> None:
    """Raises InputError when the processes of a cluster cannot each be given some groups of a batch, equally many."""
    owners: dict[int, set[int]] = {process: set() for process in range(jax.process_count())}
    for group, devices in enumerate(mesh.devices.reshape(num_groups(mesh), -1)):
        for device in devices:
            owners[device.process_index].add(group)
    for process, groups in owners.items():
        if not groups:
            raise InputError(
                f"the mesh of {mesh.size} devices has none of process {process} of {len(owners)}; let it take all "
                "devices (--mesh.data -1), or start fewer processes"
            )
    shares = {tuple(sorted(groups)) for groups in owners.values()}
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) > num_groups(mesh):
        shape = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
        raise InputError(
            f"the mesh {shape} deals the {num_groups(mesh)} groups of a batch unevenly to {len(owners)} processes: "
            f"{sorted(shares)}; let mesh.model divide, or be a multiple of, the devices of a process"
        )


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for each array (or ShapeDtypeStruct) of a tree of parameters or optimiser state, by the tables.

    A dimension that the mesh axis does not divide is replicated.
    """

    def of(path: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _fitting(_logical_axes(path_name(path), len(leaf.shape)), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First dimension over DATA_AXES; every process holds its own rows."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def traced_over(mesh: Mesh) -> AbstractContextManager:
    """Within it, a program that is traced lays its rows where `spread_rows` and `spread_lookup` say."""
    return use_abstract_mesh(mesh.abstract_mesh)


def spread_rows(states: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Rows over DATA_AXES, like the batch that they come from; as they are outside of `traced_over`.

    Without it the compiler may take "fsdp" for a way to split matrix products, as "model" is.
    """
    mesh = get_abstract_mesh()
    if not set(DATA_AXES) <= set(mesh.axis_names) or states.shape[0] % num_groups(mesh):
        return states
    return jax.lax.with_sharding_constraint(states, PartitionSpec(DATA_AXES))


def spread_lookup(states: Float[Array, "rows tokens width"]) -> Float[Array, "rows tokens width"]:
    """`spread_rows` for what was just looked up in a table that is split by its columns.

    Each device looks up its columns for all rows of its "fsdp" neighbours, and they exchange rows for columns. So
    neither the table nor its gradient is ever whole on a device.
    """
    mesh = get_abstract_mesh()
    if set(DATA_AXES) <= set(mesh.axis_names) and not (
        states.shape[0] % mesh.shape["data"] or states.shape[-1] % mesh.shape["fsdp"]
    ):
        states = jax.lax.with_sharding_constraint(states, PartitionSpec("data", None, "fsdp"))
    return spread_rows(states)


def spread(array: np.ndarray, place: NamedSharding) -> jax.Array:
    """An array that every process holds whole, laid out over the devices of all processes."""
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])


def path_name(path: tuple) -> str:
    """A tree path as "tower/layers/0/attention/query/kernel".

    Keys of dictionaries, places in lists and names of fields alike, without the quotes that tell them apart.
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _axis_sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    sizes = {axis: getattr(config, axis) for axis in AXES}
    if config.data == -1:
        sizes["fsdp"] = min(config.fsdp, max(devices // config.model, 1))
    given = {axis: size for axis, size in sizes.items() if size != -1}
    names, product = " x ".join(f"mesh.{axis}" for axis in given), " x ".join(map(str, given.values()))
    needed = math.prod(given.values())
    if needed > devices:
        raise InputError(f"{names} = {product} needs {needed} devices and {devices} are here; make the mesh smaller")
    if len(given) < len(AXES) and devices % needed:
        raise InputError(
            f"{names} = {product} does not divide the {devices} devices; choose a divisor, or give all axes"
        )
    return tuple(devices // needed if size == -1 else size for size in sizes.values())


def _logical_axes(name: str, dimensions: int) -> tuple[str, ...]:
    for pattern, axes in LOGICAL_AXES:
        if re.search(pattern, name) and len(axes) == dimensions:
            return axes
    return ()


def _fitting(axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    def splits(place: str, size: int) -> bool:
        return mesh.shape[place] > 1 and size % mesh.shape[place] == 0

    places = [MESH_AXES[axis] for axis in axes]
    return PartitionSpec(*(place if splits(place, size) else None for place, size in zip(places, shape)))
