"""The device mesh, and two tables that say which parameter is split along which of its axes.

Axes of the mesh:

    data    splits batches
    fsdp    splits batches too, and parameters with their moments; a layer's parameters are gathered where they are used
            and their gradients summed and scattered (ZeRO, arXiv 1910.02054)
    model   splits matrices (tensor parallelism after Megatron-LM, arXiv 1909.08053: the first matrix of a pair by
            columns, the second by rows, so that one sum over "model" ends each block)

Of several TPU slices, which the data-centre network joins, each holds a whole copy of the parameters: only "data"
crosses that network, with the gradients of a step and the vectors of its batch.

LOGICAL_AXES names the dimensions of a parameter. MESH_AXES maps such a name to the mesh axis that splits the dimension.
"""

import math
import re
from collections import Counter
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
"""The axes that batches are split over."""

# A parameter takes the first row that matches the end of its path and has as many dimensions. A parameter that no row
# matches is replicated; most of these are vectors. The optimiser's moments have the path of their parameter, so the
# table applies to them too.
LOGICAL_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"token_embedding/embedding$", ("vocabulary", "width")),
    (r"attention/(query|key|value)/kernel$", ("width", "heads")),
    (r"attention/(query|key|value)/bias$", ("heads",)),
    (r"attention/output/kernel$", ("heads", "width")),
    (r"feed_forward/(gate|up)/kernel$", ("width", "feed_forward")),
    (r"feed_forward/(gate|up)/bias$", ("feed_forward",)),
    (r"feed_forward/down/kernel$", ("feed_forward", "width")),
    # Every second Dense module is split by its rows, so that one sum over "model" ends each pair.
    (r"/dense/\d*[02468]/kernel$", ("width", "feed_forward")),
    (r"/dense/\d*[02468]/bias$", ("feed_forward",)),
    (r"/dense/\d*[13579]/kernel$", ("feed_forward", "width")),
    (r"feature_tables/\w+/embedding$", ("vocabulary", "width")),
)

MESH_AXES = {
    "vocabulary": "model",
    "width": "fsdp",
    "heads": "model",
    "feed_forward": "model",
}


def make_mesh(config: MeshConfig, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of config.data x config.fsdp x config.model devices, the first ones if there are more.

    On TPUs the axes follow the links between the chips. When the chips belong to several slices, "data" alone crosses
    the network between the slices, and the chips of "fsdp" and "model" are in one slice.

    Raises InputError when there are too few devices, when the axis of -1 cannot use all devices, or when the slices
    cannot be divided in this way.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _axis_sizes(config, len(devices), _tpu_slices(devices))
    chosen = devices[: math.prod(shape)]
    if (slices := _tpu_slices(chosen)) == 1:
        grid = mesh_utils.create_device_mesh(shape, chosen, allow_split_physical_axes=True)
    else:
        _check_slices(shape, chosen, slices)
        data, *inner = shape
        grid = mesh_utils.create_hybrid_device_mesh(
            (data // slices, *inner), (slices, 1, 1), chosen, allow_split_physical_axes=True
        )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_groups(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of groups into which a batch is split.

    A group is on one device, or on several devices along "model".
    """
    return math.prod(mesh.shape[axis] for axis in DATA_AXES)


def own_groups(mesh: Mesh) -> tuple[int, ...]:
    """Returns the groups of a batch that are on devices of this process, ascending.

    They need not be consecutive. When "model" spans several processes, these hold the same groups.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((num_groups(mesh),)).values()
    return tuple(sorted({index[0].start or 0 for index in indices if index is not None}))


def check_batch(size: int, mesh: Mesh, *, flag: str) -> None:
    """Raises InputError when a batch cannot be split into the groups of a mesh.

    Args:
      flag: the argument of the program that sets the size; the message names it.
    """
    if size % (groups := num_groups(mesh)):
        raise InputError(
            f"{flag} {size} is not a multiple of the mesh's data x fsdp, {groups}; choose another one, or --mesh.data"
        )


def check_processes(mesh: Mesh) -> None:
    """Raises InputError unless each process of a cluster gets groups of a batch, and all get equally many."""
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
    """Returns a NamedSharding for each array (or ShapeDtypeStruct) of a tree of parameters or optimiser state.

    The two tables decide. A dimension whose size is not a multiple of the mesh axis is replicated.
    """

    def leaf_sharding(path: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _fitting(_logical_axes(path_name(path), len(leaf.shape)), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first dimension is split over DATA_AXES; each process holds its own rows."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def traced_over(mesh: Mesh) -> AbstractContextManager:
    """Returns a context in which `spread_rows` and `spread_lookup` apply to the program that is traced."""
    return use_abstract_mesh(mesh.abstract_mesh)


def spread_rows(states: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Splits rows over DATA_AXES, like the batch that they come from. Outside of `traced_over` they stay unchanged.

    Without this constraint the compiler sometimes splits matrix products along "fsdp", as it does along "model".
    """
    mesh = get_abstract_mesh()
    if not set(DATA_AXES) <= set(mesh.axis_names) or states.shape[0] % num_groups(mesh):
        return states
    return jax.lax.with_sharding_constraint(states, PartitionSpec(DATA_AXES))


def spread_lookup(states: Float[Array, "rows tokens width"]) -> Float[Array, "rows tokens width"]:
    """Does what `spread_rows` does, for states that were just looked up in a table that is split by its columns.

    Each device looks up its columns for all rows of its "fsdp" neighbours, and then they exchange columns for rows. So
    no device ever holds the whole table or its whole gradient.
    """
    mesh = get_abstract_mesh()
    if set(DATA_AXES) <= set(mesh.axis_names) and not (
        states.shape[0] % mesh.shape["data"] or states.shape[-1] % mesh.shape["fsdp"]
    ):
        states = jax.lax.with_sharding_constraint(states, PartitionSpec("data", None, "fsdp"))
    return spread_rows(states)


def spread(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Distributes an array that every process holds whole over the devices of all processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def path_name(path: tuple) -> str:
    """Returns a tree path as text, such as "tower/layers/0/attention/query/kernel".

    Keys of dictionaries, positions in lists and names of fields look alike, without quotes.
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _tpu_slices(devices: Sequence[Any]) -> int:
    """Returns the number of TPU slices that devices belong to.

    Devices of other platforms, and those of one slice that is not attached, have no index: they are one slice.
    """
    return len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1


def _check_slices(shape: tuple[int, ...], devices: Sequence[Any], slices: int) -> None:
    """Raises InputError unless each slice has as many of the devices, and "data" divides them into whole slices."""
    counts = sorted(Counter(device.slice_index for device in devices).items())
    if len({count for _, count in counts}) > 1:
        parts = ", ".join(f"{count} in slice {index}" for index, count in counts)
        raise InputError(
            f"the mesh of {len(devices)} chips has {parts}; every slice must have as many (--mesh.data -1 takes all)"
        )
    if shape[0] % slices:
        raise InputError(
            f"mesh.data = {shape[0]} is not a multiple of the {slices} TPU slices, and only data can cross the network "
            f"between them; make mesh.fsdp x mesh.model at most the {len(devices) // slices} chips of a slice"
        )


def _axis_sizes(config: MeshConfig, devices: int, slices: int) -> tuple[int, ...]:
    sizes = {axis: getattr(config, axis) for axis in AXES}
    if config.data == -1:
        sizes["fsdp"] = min(config.fsdp, max(devices // slices // config.model, 1))
    fixed = {axis: size for axis, size in sizes.items() if size != -1}
    names, product = " x ".join(f"mesh.{axis}" for axis in fixed), " x ".join(map(str, fixed.values()))
    needed = math.prod(fixed.values())
    if needed > devices:
        raise InputError(f"{names} = {product} needs {needed} devices and {devices} are here; make the mesh smaller")
    if len(fixed) < len(AXES) and devices % needed:
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
    def splits(mesh_axis: str, size: int) -> bool:
        return mesh.shape[mesh_axis] > 1 and size % mesh.shape[mesh_axis] == 0

    mesh_axes = [MESH_AXES[axis] for axis in axes]
    return PartitionSpec(*(axis if splits(axis, size) else None for axis, size in zip(mesh_axes, shape)))
