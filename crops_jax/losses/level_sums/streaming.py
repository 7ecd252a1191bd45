"""Level sums without the score matrix: exact, linear memory, on one device or over the data axes of a mesh.

Over a mesh each device holds a part of the queries and a part of the documents, and every query meets every document:

- "gather": documents are gathered once, and the parts of their gradient summed and scattered once (all_gather,
  psum_scatter);
- "ring": each device works on the block of documents that it holds and passes it on (ppermute), as often as there are
  devices; in backward the block's gradient travels with it and is complete when it is home. Never more than two
  blocks and two gradients a device.

The derivative is custom. Forward saves its inputs and, for each query, greatest, log_total and the mean of level 0's
scores; backward makes the tiles again. Memory beside inputs and gradients: those, one tile, the named pairs, and what
the exchange holds. FLOPs: 2 B N d forward, 8 B N d in total.
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int32

from crops_jax.losses.level_sums import tiles
from crops_jax.losses.level_sums.named_pairs import Tiling, add_named_scores, inside_block, sorted_pairs
from crops_jax.losses.level_sums.sums import LOWEST, RawSums

Exchange = Literal["gather", "ring"]
Engine = Literal["tiles", "tpu kernels", "gpu kernels"]

# Rows and columns of one tile: 16 MiB of scores in float32.
_TILE = 2048
# Of the derivative that a GPU kernel leaves for the matrix products after it: 128 MiB in bfloat16, 64 MiB in float32.
# The larger a tile, the fewer times the float32 gradients are read and written.
_GPU_TILE = {2: 8192, 4: 4096}
# Named pairs that one turn of a tile's loop handles; most tiles hold fewer.
_CHUNK = 8192
# Gathered documents and their float32 gradient that a device may hold before documents go round in a ring.
_MOST_GATHERED_BYTES = 1 << 30


class Plan(NamedTuple):
    """The devices and the parts of the computation. mesh None: one device, or wherever the compiler places it.

    axes: those of the mesh that queries and documents are split over, alike. tile: most rows and columns of a tile;
    the kernels have smaller ones inside it, or of their own. device_kind: decides the sizes of GPU kernels.
    interpret: kernels run as plain JAX, on any device.
    """

    mesh: Mesh | None
    axes: tuple[str, ...]
    exchange: Exchange
    tile: int
    engine: Engine
    device_kind: str = ""
    interpret: bool = False

    @property
    def devices(self) -> int:
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in self.axes)


def plan_over(
    mesh: Mesh | None,
    axes: tuple[str, ...],
    *,
    queries: int,
    docs: int,
    dim: int,
    itemsize: int,
    exchange: Literal["auto", "gather", "ring"] = "auto",
    engine: Engine = "tiles",
    device_kind: str = "",
) -> Plan:
    """The plan for a batch. "auto" gathers while documents and their float32 gradient take up to 1 GiB a device.

    Raises ValueError when the devices do not divide the batch.
    """
    tile = _GPU_TILE.get(itemsize, _TILE) if engine == "gpu kernels" else _TILE
    plan = Plan(mesh, axes, "gather", tile, engine, device_kind)
    if plan.devices == 1:
        return plan._replace(mesh=None, axes=())
    if queries % plan.devices or docs % plan.devices:
        raise ValueError(
            f"{queries} queries and {docs} documents cannot be split over {plan.devices} devices "
            f"({' x '.join(axes)}); make both multiples of it"
        )
    if exchange == "auto":
        exchange = "ring" if docs * dim * (itemsize + 4) > _MOST_GATHERED_BYTES else "gather"
    return plan._replace(exchange=exchange)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def streaming_sums(
    plan: Plan,
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    temperatures: Float[Array, "temperatures"],
    doc_index: Int32[Array, "queries k"],
    offset: Float[Array, "docs"],
    threshold: Float[Array, "queries"] | None,
) -> RawSums:
    """See `crops_jax.losses.level_sums.api.level_sums`."""
    return _forward(plan, query_embeddings, doc_embeddings, temperatures, doc_index, offset, threshold)[0]


def named_scores(
    plan: Plan,
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    doc_index: Int32[Array, "queries k"],
) -> Float[Array, "queries k"]:
    """Scores of the named pairs alone, without derivative; 0 where doc_index is -1. One column of pairs at a time."""

    def local(queries, docs, doc_index):
        def add(scores, rows, block):
            return add_named_scores(scores, queries, rows, inside_block(doc_index, block, rows.shape[0]))

        return _over_blocks(plan, docs, jnp.zeros(doc_index.shape, jnp.float32), add)

    split = PartitionSpec(plan.axes)
    return jax.lax.stop_gradient(
        _mapped(plan, local, (split, split, split), split)(query_embeddings, doc_embeddings, doc_index)
    )


class _Saved(NamedTuple):
    """The results of forward that backward needs. expected: the mean of s - greatest over level 0."""

    queries: Float[Array, "queries dim"]
    docs: Float[Array, "docs dim"]
    temperatures: Float[Array, "temperatures"]
    doc_index: Int32[Array, "queries k"]
    offset: Float[Array, "docs"]
    threshold: Float[Array, "queries"] | None
    greatest: Float[Array, "queries"]
    log_total: Float[Array, "queries temperatures"]
    expected: Float[Array, "queries temperatures"]


def _forward(plan, queries, docs, temperatures, doc_index, offset, threshold):
    def local(queries, docs, temperatures, doc_index, offset, threshold):
        add_block, _ = _engine(plan, queries, docs, temperatures, doc_index, offset, threshold)

        def add(sums, rows, block):
            return add_block(sums, queries, rows, block=block)

        sums = _over_blocks(plan, docs, tiles.no_sums(doc_index, temperatures), add)
        found = sums.total > 0
        total = jnp.where(found, sums.total, 1.0)
        raw = RawSums(
            sums.greatest, jnp.where(found, jnp.log(total), LOWEST), sums.named.reshape(doc_index.shape), sums.ignored
        )
        return raw, sums.moment / total

    split, everywhere = PartitionSpec(plan.axes), PartitionSpec()
    specs = (split, split, everywhere, split, everywhere, split)
    raw, expected = _mapped(plan, local, specs, split)(queries, docs, temperatures, doc_index, offset, threshold)
    saved = _Saved(queries, docs, temperatures, doc_index, offset, threshold, raw.greatest, raw.log_total, expected)
    return raw, saved


def _backward(plan, saved: _Saved, cotangent: RawSums):
    def local(saved: _Saved, d_log_total, d_named):
        queries, docs, temperatures = saved.queries, saved.docs, saved.temperatures
        d_temperatures = -(d_log_total * saved.expected).sum(axis=0) / temperatures**2
        level_0 = d_log_total / temperatures[None, :]
        peak = jnp.maximum(jnp.abs(level_0).max(), jnp.abs(d_named).max())
        divisor = jnp.where(peak > 0, peak, 1.0)
        found = saved.log_total > LOWEST / 2
        pulls = tiles.Pulls(
            greatest=jnp.where(found[:, 0], saved.greatest, 0.0),
            log_total=jnp.where(found, saved.log_total, -LOWEST),
            level_0=level_0 / divisor,
            named=d_named.ravel() / divisor,
            peak=peak,
        )
        _, add_gradients = _engine(plan, queries, docs, temperatures, saved.doc_index, saved.offset, saved.threshold)

        def add(d_queries, d_rows, rows, block):
            return add_gradients(d_queries, d_rows, queries, rows, pulls, block=block)

        d_queries, d_docs = _gradients_over_blocks(plan, queries, docs, add)
        if plan.mesh is not None:
            d_temperatures = jax.lax.psum(d_temperatures, plan.axes)
        return d_queries.astype(queries.dtype), d_docs.astype(docs.dtype), d_temperatures

    split: Any = PartitionSpec(plan.axes)
    everywhere: Any = PartitionSpec()
    specs = _Saved(split, split, everywhere, split, everywhere, split, split, split, split)
    d_queries, d_docs, d_temperatures = _mapped(plan, local, (specs, split, split), (split, split, everywhere))(
        saved, cotangent.log_total, cotangent.named
    )
    none = np.zeros(saved.doc_index.shape, jax.dtypes.float0)
    d_threshold = None if saved.threshold is None else jnp.zeros_like(saved.threshold)
    return d_queries, d_docs, d_temperatures, none, jnp.zeros_like(saved.offset), d_threshold


streaming_sums.defvjp(_forward, _backward)


def _engine(plan: Plan, queries, docs, temperatures, doc_index, offset, threshold) -> tuple[Any, Any]:
    """add_block and add_gradients of the plan's engine, with all arguments that blocks share."""
    shared = {"temperatures": temperatures, "offset": offset, "threshold": threshold}
    # Pallas is imported where it is used only.
    if plan.engine == "tpu kernels":
        from crops_jax.losses.level_sums import tpu_kernel

        shared |= {"doc_index": doc_index, "interpret": plan.interpret}
        return functools.partial(tpu_kernel.add_block, **shared), functools.partial(tpu_kernel.add_gradients, **shared)
    tiling = _tiling(plan, queries, docs, doc_index)
    by_tile = {"pairs": sorted_pairs(doc_index, tiling), "tiling": tiling}
    add_gradients = functools.partial(tiles.add_gradients, **shared, **by_tile)
    if plan.engine == "tiles":
        return functools.partial(tiles.add_block, **shared, **by_tile), add_gradients
    from crops_jax.losses.level_sums import gpu_kernel

    sizes = gpu_kernel.kernel_sizes(plan.device_kind, dtype=queries.dtype, dim=queries.shape[1])
    tiling = gpu_kernel.tiling_of_sums(tiling, sizes.sums)
    by_tile = {"pairs": sorted_pairs(doc_index, tiling), "tiling": tiling}
    shared |= {"doc_index": doc_index, "size": sizes.sums, "interpret": plan.interpret}
    derivative = functools.partial(gpu_kernel.level_0_derivative, size=sizes.derivative, interpret=plan.interpret)
    return (
        functools.partial(gpu_kernel.add_block, **shared, **by_tile),
        functools.partial(add_gradients, derivative=derivative),
    )


def _tiling(plan: Plan, queries: Array, docs: Array, doc_index: Array) -> Tiling:
    """Computes the sums of one device's queries against the blocks of documents that it receives in turn."""
    blocks = plan.devices if plan.exchange == "ring" else 1
    columns = docs.shape[0] if plan.exchange == "ring" else docs.shape[0] * plan.devices
    return Tiling(
        queries=queries.shape[0],
        docs=columns,
        blocks=blocks,
        query_tile=min(plan.tile, queries.shape[0]),
        doc_tile=min(plan.tile, columns),
        chunk=min(_CHUNK, doc_index.size),
    )


def _mapped(plan: Plan, local, in_specs, out_specs):
    """`local` on every device of the mesh, or as it is without one."""
    if plan.mesh is None:
        return local
    # Gradients are written out by hand, so what varies over which axis need not be tracked.
    return jax.shard_map(local, mesh=plan.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _over_blocks(plan: Plan, docs: Array, carry, add):
    """carry = add(carry, rows, block) for all blocks of documents."""
    if plan.exchange == "gather":
        return add(carry, _gathered(plan, docs), 0)
    own = jax.lax.axis_index(plan.axes)

    def turn(number, state):
        rows, carry = state
        return _passed_on(plan, rows), add(carry, rows, (own + number) % plan.devices)

    return jax.lax.fori_loop(0, plan.devices, turn, (docs, carry))[1]


def _gradients_over_blocks(plan: Plan, queries: Array, docs: Array, add) -> tuple[Array, Array]:
    """float32 gradients of this device's queries and documents, from add(d_queries, d_rows, rows, block)."""
    d_queries = jnp.zeros(queries.shape, jnp.float32)
    if plan.exchange == "gather":
        rows = _gathered(plan, docs)
        d_queries, d_rows = add(d_queries, jnp.zeros(rows.shape, jnp.float32), rows, 0)
        if plan.mesh is not None:
            d_rows = jax.lax.psum_scatter(d_rows, plan.axes, scatter_dimension=0, tiled=True)
        return d_queries, d_rows
    own = jax.lax.axis_index(plan.axes)

    def turn(number, state):
        rows, d_rows, d_queries = state
        d_queries, d_rows = add(d_queries, d_rows, rows, (own + number) % plan.devices)
        return _passed_on(plan, rows), _passed_on(plan, d_rows), d_queries

    start = (docs, jnp.zeros(docs.shape, jnp.float32), d_queries)
    _, d_docs, d_queries = jax.lax.fori_loop(0, plan.devices, turn, start)
    return d_queries, d_docs


def _gathered(plan: Plan, docs: Array) -> Array:
    return docs if plan.mesh is None else jax.lax.all_gather(docs, plan.axes, tiled=True)


def _passed_on(plan: Plan, rows: Array) -> Array:
    """Returns the array that the next device held."""
    return jax.lax.ppermute(rows, plan.axes, [(i, (i - 1) % plan.devices) for i in range(plan.devices)])
