"""Flash attention on packed rows, whose scores never leave the chip: the kernels of each device, split over a mesh.

TPUs run splash attention, JAX's own kernels, with segments, causal masks and grouped heads. NVIDIA GPUs run the kernels
of crops_jax.models.attention.gpu_kernel. Inside the kernels segments separate the texts of a row, in the forward and
in the backward pass.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int32, Key

from crops_jax.models.attention import gpu_kernel

# The rows and columns of a block of splash attention are multiples of the number of lanes of a TPU register.
_LANES = 128
_GREATEST_BLOCK = 512


def flash_attend(
    query: Float[Array, "rows tokens heads width"],
    key: Float[Array, "rows tokens groups width"],
    value: Float[Array, "rows tokens groups width"],
    *,
    segments: Int32[Array, "rows tokens"],
    causal: bool,
    mesh: Mesh,
    dropout: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "rows tokens heads*width"]:
    """Returns what `crops_jax.models.attention.plain.attend` returns if tokens of equal segments see each other.

    Rows are split over all axes of the mesh except "model". Heads are split over "model" if it divides their groups.

    Raises ValueError if dropout is applied.
    """
    if dropout and dropout_key is not None:
        raise ValueError(f"flash attention has no dropout, found {dropout}; use attention 'plain' or 'auto'")
    kernel = _KERNELS[mesh.devices.flat[0].platform]
    rows = tuple(axis for axis in mesh.axis_names if axis != "model")
    heads = "model" if key.shape[2] % mesh.shape.get("model", 1) == 0 and "model" in mesh.shape else None
    by_head = PartitionSpec(rows, None, heads)
    averages = jax.shard_map(
        lambda *arguments: kernel(*arguments, causal),
        mesh=mesh,
        in_specs=(by_head, by_head, by_head, PartitionSpec(rows)),
        out_specs=by_head,
        # Kernels do not declare which values vary over which axis.
        check_vma=False,
    )(query, key, value, segments)
    return averages.reshape(*query.shape[:2], -1)


def _splash(query: Array, key: Array, value: Array, segments: Array, causal: bool, interpret: bool = False) -> Array:
    """Returns JAX's splash attention (jax.experimental.pallas.ops.tpu) of each row, padded to whole blocks."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    tokens, heads, width = query.shape[1:]
    padding = -tokens % _LANES
    padded = tokens + padding
    block = next(size for size in (_GREATEST_BLOCK, 256, _LANES) if padded % size == 0)
    mask = splash.CausalMask((padded, padded)) if causal else splash.FullMask((padded, padded))
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(
            **dict.fromkeys(("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv"), block),
            **dict.fromkeys(("block_kv_dkv_compute", "block_q_dq", "block_kv_dq"), block),
        ),
        interpret=interpret,
    )
    arrays = [
        jnp.pad(array, ((0, 0), (0, padding), (0, 0), (0, 0))).swapaxes(1, 2)
        for array in ((query / np.sqrt(width)).astype(query.dtype), key, value)
    ]
    segments = jnp.pad(segments, ((0, 0), (0, padding)), constant_values=-2)
    # The products of splash attention have no argument for the precision of float32.
    with jax.default_matmul_precision("highest" if query.dtype == jnp.float32 else "default"):
        averages: Any = jax.vmap(kernel)(*arrays, splash.SegmentIds(segments, segments))
    return averages.swapaxes(1, 2)[:, :tokens]


_KERNELS = {
    "tpu": _splash,
    "gpu": gpu_kernel.attend_segments,
    "cuda": gpu_kernel.attend_segments,
}
