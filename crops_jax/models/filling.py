"""Parameters into the module that they belong to."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

_Module = TypeVar("_Module", bound=nnx.Module)


def filled(abstract: _Module, parameters: Mapping[str, Any]) -> _Module:
    """A module with given parameters, copied as float32.

    Args:
      abstract: as nnx.eval_shape gives it: structure and shapes.
      parameters: nested dictionary as of nnx.to_pure_dict(nnx.state(model, nnx.Param)); layers may be numbered by
        integers or by strings.

    Raises ValueError, naming the path, where a parameter is missing, unknown or of another shape.
    """
    graph, state = nnx.split(abstract)
    given = {_path(path): value for path, value in jax.tree_util.tree_leaves_with_path(dict(parameters))}
    expected = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))}
    for path in sorted(set(given) ^ set(expected)):
        raise ValueError(f"parameter {path} is {'unknown' if path in given else 'missing'}")
    for path, leaf in expected.items():
        if tuple(given[path].shape) != tuple(leaf.shape):
            raise ValueError(f"parameter {path} has shape {tuple(given[path].shape)}, expected {tuple(leaf.shape)}")
    # Copies: parts that start from one array must not share a buffer that a train step donates.
    arrays = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.array(given[_path(path)], jnp.float32, copy=True), nnx.to_pure_dict(state)
    )
    nnx.replace_by_pure_dict(state, arrays)
    return nnx.merge(graph, state)


def _path(keys: tuple) -> str:
    return "/".join(str(key.key) for key in keys)
