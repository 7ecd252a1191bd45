"""Parameters of a module: drawn at random, placed on a mesh, or put into the module.

Parameters are nested dictionaries, like the result of nnx.to_pure_dict(nnx.state(model, nnx.Param)). A leaf is any
object that has a shape and returns float32 numbers for a slice of each dimension: an array of NumPy or JAX, or a tensor
in a file (crops_jax.pretrained.tensor_files), of which only the parts that the devices of this process hold are read.
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
    """Returns the parameters that `create` draws, on their devices of `mesh`. The numbers do not depend on the mesh."""

    def parameters() -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(create(), nnx.Param))

    return jax.jit(parameters, out_shardings=sharding.tree_shardings(jax.eval_shape(parameters), mesh))()


def place_parameters(abstract: nnx.Module, parameters: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Returns parameters as float32 arrays on `mesh`, by the tables of crops_jax.devices.sharding.

    Every process reads only the parts that its devices hold, so no process holds the whole of an array that is split.

    Args:
      abstract: the module as nnx.eval_shape returns it: its structure and shapes.
      parameters: the parameters; integers or strings can number the layers.
      mesh: the devices that hold the arrays.

    Raises ValueError, naming the path, if a parameter is missing, unknown or of another shape.
    """
    shapes, by_path = _match_paths(abstract, parameters)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, placement: _array(by_path[path_name(path)], leaf.shape, placement),
        shapes,
        sharding.tree_shardings(shapes, mesh),
    )


def fill_module(abstract: _Module, parameters: Mapping[str, Any]) -> _Module:
    """Returns a module with these parameters, copied as float32 to the default device.

    The arguments and the errors are those of `place_parameters`.
    """
    graph, state = nnx.split(abstract)
    shapes, by_path = _match_paths(abstract, parameters)
    # The arrays are copies: parts that start from one array must not share a buffer that a train step donates.
    arrays = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.array(by_path[path_name(path)][...], jnp.float32, copy=True), shapes
    )
    nnx.replace_by_pure_dict(state, arrays)
    return nnx.merge(graph, state)


def _match_paths(abstract: nnx.Module, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the shapes of the module's parameters, and the parameters by their paths.

    Raises ValueError unless every path has a parameter of its shape and no other parameters exist.
    """
    shapes = nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    by_path = {
        path_name(path): _on_host(value) for path, value in jax.tree_util.tree_leaves_with_path(dict(parameters))
    }
    expected = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    for path in sorted(set(by_path) ^ set(expected)):
        raise ValueError(f"parameter {path} is {'unknown' if path in by_path else 'missing'}")
    for path, leaf in expected.items():
        if tuple(by_path[path].shape) != tuple(leaf.shape):
            raise ValueError(f"parameter {path} has shape {tuple(by_path[path].shape)}, expected {tuple(leaf.shape)}")
    return shapes, by_path


def _array(source: Any, shape: tuple[int, ...], placement: Sharding) -> jax.Array:
    parts: dict[tuple, np.ndarray] = {}

    def part(index: Any) -> np.ndarray:
        # Devices that hold the same part share one copy of it; `fill_module` explains why it is a copy.
        borders = tuple((bounds.start, bounds.stop) for bounds in index)
        if borders not in parts:
            parts[borders] = np.array(source[index], np.float32, order="C")
        return parts[borders]

    return jax.make_array_from_callback(shape, placement, part)


def _on_host(source: Any) -> Any:
    # JAX would compile a program for each slice of one of its arrays.
    return np.asarray(source) if isinstance(source, jax.Array) else source
