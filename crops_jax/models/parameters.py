"""Parameters into the module that they belong to, and onto the mesh that they are split over.

Parameters are nested dictionaries as of nnx.to_pure_dict(nnx.state(model, nnx.Param)). A leaf is anything that has a
shape and gives float32 numbers for a slice of each dimension: an array of NumPy or JAX, or a tensor in a file
(crops_jax.pretrained.tensor_files), of which then no more is read than the devices of this process hold.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, Sharding

from crops_jax.devices import sharding
from crops_jax.devices.sharding import path_name

_Module = TypeVar("_Module", bound=nnx.Module)


def random_parameters(create: Callable[[], nnx.Module], mesh: Mesh) -> dict[str, Any]:
    """The parameters that `create` draws, each made where it lies on `mesh`; the same numbers on any mesh."""

    def parameters() -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(create(), nnx.Param))

    return jax.jit(parameters, out_shardings=sharding.tree_shardings(jax.eval_shape(parameters), mesh))()


def placed(abstract: nnx.Module, parameters: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Parameters as float32 arrays over `mesh`, by the tables of crops_jax.devices.sharding.

    Every process reads the parts that its devices hold, so that nobody holds all of an array that is split.

    Args:
      abstract: the module, as nnx.eval_shape gives it: structure and shapes.
      parameters: layers may be numbered by integers or by strings.

    Raises ValueError, naming the path, where a parameter is missing, unknown or of another shape.
    """
    shapes, given = _matched(abstract, parameters)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, place: _array(given[path_name(path)], leaf.shape, place),
        shapes,
        sharding.tree_shardings(shapes, mesh),
    )


def filled(abstract: _Module, parameters: Mapping[str, Any]) -> _Module:
    """A module with given parameters, copied as float32 onto the default device; arguments as of `placed`."""
    graph, state = nnx.split(abstract)
    shapes, given = _matched(abstract, parameters)
    # Copies: parts that start from one array must not share a buffer that a train step donates.
    arrays = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.array(given[path_name(path)][...], jnp.float32, copy=True), shapes
    )
    nnx.replace_by_pure_dict(state, arrays)
    return nnx.merge(graph, state)


def _matched(abstract: nnx.Module, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes of the module's parameters, and the given parameters by their paths, if each has its own."""
    shapes = nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    given = {path_name(path): _on_host(value) for path, value in jax.tree_util.tree_leaves_with_path(dict(parameters))}
    expected = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    for path in sorted(set(given) ^ set(expected)):
        raise ValueError(f"parameter {path} is {'unknown' if path in given else 'missing'}")
    for path, leaf in expected.items():
        if tuple(given[path].shape) != tuple(leaf.shape):
            raise ValueError(f"parameter {path} has shape {tuple(given[path].shape)}, expected {tuple(leaf.shape)}")
    return shapes, given


def _array(source: Any, shape: tuple[int, ...], place: Sharding) -> jax.Array:
    parts: dict[tuple, np.ndarray] = {}

    def part(index: Any) -> np.ndarray:
        # Devices that hold the same part share one reading of it. Copied: see `filled`.
        borders = tuple((one.start, one.stop) for one in index)
        if borders not in parts:
            parts[borders] = np.array(source[index], np.float32, order="C")
        return parts[borders]

    return jax.make_array_from_callback(shape, place, part)


def _on_host(source: Any) -> Any:
    # A slice of an array of JAX would be a program of its own.
    return np.asarray(source) if isinstance(source, jax.Array) else source
