"""Level sums without the score matrix. They are exact, use linear memory, and run on one device or on a mesh.

Over the data axes of a mesh, each device stores a part of the queries and a part of the documents. Every query needs
the scores of every document, so the documents are exchanged in one of two ways:

- "gather": the documents are gathered once (all_gather), and the parts of their gradient are summed and scattered once
  (psum_scatter).
- "ring": each device processes its current block of documents and passes it to its neighbour (ppermute), once for each
  device. In the backward pass the gradient of a block is passed on together with the block, and it is complete when the
  block is back at its first device. A device stores at most two blocks and two gradients.

The derivative is custom. The forward pass saves its inputs and, for each query, greatest, log_total and the mean of the
scores of level 0; the backward pass computes the tiles again. Besides inputs and gradients, the memory holds these
saved values, one tile, the named pairs and the buffers of the exchange. With B queries and N documents of dimension d,
the forward pass takes 2 B N d floating-point operations, and both passes together take 8 B N d.
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

# The number of rows, and of columns, of one tile. A tile has 16 MiB of scores in float32.
_TILE = 2048
# The same numbers for a tile of the derivative that a GPU kernel writes for the matrix products after it, by the item
# size of the embeddings. A tile has 128 MiB in bfloat16 and 64 MiB in float32. With larger tiles, the float32 gradients
# are read and written fewer times.
_GPU_TILE = {2: 8192, 4: 4096}
# The number of named pairs that one iteration of a tile's loop processes; few tiles have more.
_CHUNK = 8192
# The maximum size of the gathered documents and their float32 gradient on a device; above it, "auto" selects the ring.
_MAX_GATHERED_BYTES = 1 << 30


class Plan(NamedTuple):
    """The devices and the parts of the computation.

    mesh: the devices; None: one device, or the devices that the compiler chooses.
    axes: the axes of the mesh over which queries and documents are split in the same way.
    exchange: how documents are brought to the queries of each device.
    tile: the maximum number of rows, and of columns, of a tile. The kernels use smaller tiles inside it, or tiles of
      another size.
    engine: the code that computes a block of scores.
    device_kind: the kind of device, which decides the sizes of GPU kernels.
    interpret: True to run the kernels as plain JAX, on any device.
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
    """Returns the plan for a batch.

    The exchange "auto" becomes "gather" if the documents and their float32 gradient take at most 1 GiB per device, and
    "ring" otherwise. Raises ValueError if the batch cannot be divided equally among the devices.
    """
    tile = _GPU_TILE.get(itemsize, _TILE) if engine == "gpu kernels" else _TILE
    plan = Plan(mesh, axes, "gather", tile, engine, device_kind)
    if plan.devices == 1:
        return plan._replace(mesh=None, axes=())
    if queries % plan.devices or docs % plan.devices:
        raise ValueError(
            f"{queries} queries and {docs} documents cannot be split over {plan.devices} devices "
            f"({' x '.join(axes)}); make both numbers multiples of {plan.devices}"
        )
    if exchange == "auto":
        exchange = "ring" if docs * dim * (itemsize + 4) > _MAX_GATHERED_BYTES else "gather"
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
    """Computes `crops_jax.losses.level_sums.api.level_sums`, with a custom derivative."""
    return _forward(plan, query_embeddings, doc_embeddings, temperatures, doc_index, offset, threshold)[0]


def named_scores(
    plan: Plan,
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    doc_index: Int32[Array, "queries k"],
) -> Float[Array, "queries k"]:
    """Returns only the scores of the named pairs, without derivative; the score is 0 if doc_index is -1.

    They are computed for one column of pairs at a time.
    """

    def local(queries, docs, doc_index):
        def add(scores, rows, block):
            return add_named_scores(scores, queries, rows, inside_block(doc_index, block, rows.shape[0]))

        return _fold_over_blocks(plan, docs, jnp.zeros(doc_index.shape, jnp.float32), add)

    split = PartitionSpec(plan.axes)
    return jax.lax.stop_gradient(
        _mapped(plan, local, (split, split, split), split)(query_embeddings, doc_embeddings, doc_index)
    )


class _Saved(NamedTuple):
    """The inputs and results of the forward pass that the backward pass needs.

    expected: the mean of s - greatest over level 0, with the weights of the softmax at each temperature.
    """

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

        sums = _fold_over_blocks(plan, docs, tiles.no_sums(doc_index, temperatures), add)
        has_level_0 = sums.total > 0
        total = jnp.where(has_level_0, sums.total, 1.0)
        log_total = jnp.where(has_level_0, jnp.log(total), LOWEST)
        raw = RawSums(sums.greatest, log_total, sums.named.reshape(doc_index.shape), sums.ignored)
        return raw, sums.moment / total

    split, replicated = PartitionSpec(plan.axes), PartitionSpec()
    specs = (split, split, replicated, split, replicated, split)
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
        has_level_0 = saved.log_total > LOWEST / 2
        pulls = tiles.Pulls(
            greatest=jnp.where(has_level_0[:, 0], saved.greatest, 0.0),
            log_total=jnp.where(has_level_0, saved.log_total, -LOWEST),
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
    replicated: Any = PartitionSpec()
    specs = _Saved(split, split, replicated, split, replicated, split, split, split, split)
    d_queries, d_docs, d_temperatures = _mapped(plan, local, (specs, split, split), (split, split, replicated))(
        saved, cotangent.log_total, cotangent.named
    )
    d_doc_index = np.zeros(saved.doc_index.shape, jax.dtypes.float0)
    d_threshold = None if saved.threshold is None else jnp.zeros_like(saved.threshold)
    return d_queries, d_docs, d_temperatures, d_doc_index, jnp.zeros_like(saved.offset), d_threshold


streaming_sums.defvjp(_forward, _backward)


def _engine(plan: Plan, queries, docs, temperatures, doc_index, offset, threshold) -> tuple[Any, Any]:
    """Returns add_block and add_gradients of the plan's engine, with all arguments that are the same for all blocks."""
    shared = {"temperatures": temperatures, "offset": offset, "threshold": threshold}
    # Pallas is imported only if the engine uses it.
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
    """Returns the tiling of the scores of one device's queries with all blocks of documents that it receives."""
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
    """Returns `local` mapped over the devices of the mesh, or `local` itself without a mesh."""
    if plan.mesh is None:
        return local
    # The gradients are explicit code, so JAX need not track which values vary over which axis.
    return jax.shard_map(local, mesh=plan.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _fold_over_blocks(plan: Plan, docs: Array, carry, add):
    """Returns the carry after carry = add(carry, rows, block) for all blocks of documents."""
    if plan.exchange == "gather":
        return add(carry, _gathered(plan, docs), 0)
    own_block = jax.lax.axis_index(plan.axes)

    def process_block(number, state):
        rows, carry = state
        return _rows_of_next_device(plan, rows), add(carry, rows, (own_block + number) % plan.devices)

    return jax.lax.fori_loop(0, plan.devices, process_block, (docs, carry))[1]


def _gradients_over_blocks(plan: Plan, queries: Array, docs: Array, add) -> tuple[Array, Array]:
    """Returns the float32 gradients of this device's queries and documents.

    add(d_queries, d_rows, rows, block) must return both gradients with the contribution of a block added.
    """
    d_queries = jnp.zeros(queries.shape, jnp.float32)
    if plan.exchange == "gather":
        rows = _gathered(plan, docs)
        d_queries, d_rows = add(d_queries, jnp.zeros(rows.shape, jnp.float32), rows, 0)
        if plan.mesh is not None:
            d_rows = jax.lax.psum_scatter(d_rows, plan.axes, scatter_dimension=0, tiled=True)
        return d_queries, d_rows
    own_block = jax.lax.axis_index(plan.axes)

    def process_block(number, state):
        rows, d_rows, d_queries = state
        d_queries, d_rows = add(d_queries, d_rows, rows, (own_block + number) % plan.devices)
        return _rows_of_next_device(plan, rows), _rows_of_next_device(plan, d_rows), d_queries

    start = (docs, jnp.zeros(docs.shape, jnp.float32), d_queries)
    _, d_docs, d_queries = jax.lax.fori_loop(0, plan.devices, process_block, start)
    return d_queries, d_docs


def _gathered(plan: Plan, docs: Array) -> Array:
    return docs if plan.mesh is None else jax.lax.all_gather(docs, plan.axes, tiled=True)


def _rows_of_next_device(plan: Plan, rows: Array) -> Array:
    """Passes the rows to the previous device of the ring and returns the rows of the next device."""
    return jax.lax.ppermute(rows, plan.axes, [(i, (i - 1) % plan.devices) for i in range(plan.devices)])
