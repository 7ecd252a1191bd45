"""Measures time and memory of the losses, and prints one line of JSON.

Time: forward and backward passes run over the same random unit vectors. Each program is compiled and warmed up, and the
programs run in turn (A B A B ...). The output has medians, and medians of the ratios within a turn. The cost of grading
is the ratio of H-InfoNCE to plain InfoNCE in the same implementation; passes_of_infonce compares with one pass for each
positive. On a GPU or TPU the kernels are measured in addition to streaming, in bfloat16. share_of_peak is the share of
the device's peak that the four matrix products of forward and backward reach.

Memory: the compiler reports the memory that the compiled program needs in addition to arguments, loss and gradients.
The program does not run. The sizes are those of Inf-CL's table (arXiv 2410.17243: InfoNCE without labels, GB on each of
8 GPUs), on 8 devices that share one batch, and on a single device.

    python -m benchmarks.loss
"""

import argparse
import json
import os
import statistics
import time

from crops_jax.devices.processor import processor

_DEVICES = 8
_INF_CL_GIGABYTES = {1 << 15: 0.18, 1 << 16: 0.36, 1 << 17: 0.72, 1 << 18: 1.45}
_OPEN_CLIP_GIGABYTES = {1 << 15: 2.27, 1 << 16: 8.63, 1 << 17: 33.6}
_POSITIVES = 4


def case(queries: int, dim: int, dtype: str):
    """Returns unit vectors and labels: for each query _POSITIVES positives, and one document of each level 1 to 3.

    The columns of the labels are random.
    """
    import jax.numpy as jnp
    import numpy as np

    from crops_jax.labels import SparseLabels

    random = np.random.default_rng(0)
    vectors = random.standard_normal((2, queries, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    levels = np.array([5, *[4] * (_POSITIVES - 1), 3, 2, 1], np.int32)
    # A random start and a stride result in distinct columns in each row.
    start = random.integers(0, queries, (queries, 1))
    columns = ((start + np.arange(len(levels))[None, :] * (queries // len(levels) - 1)) % queries).astype(np.int32)
    labels = SparseLabels(jnp.asarray(columns), jnp.broadcast_to(jnp.asarray(levels), columns.shape))
    return *(jnp.asarray(side, dtype) for side in vectors), labels


def step(loss, implementation: str):
    """Returns the compiled loss with gradients for both embeddings and the temperature."""
    import jax

    def value(q, d, temperature, labels):
        return loss(q, d, labels, temperature=temperature, implementation=implementation)

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))


def times(arguments: argparse.Namespace, dim: int) -> dict:
    import jax
    import jax.numpy as jnp

    from crops_jax.losses import h_infonce, infonce, multi_positive_infonce

    q, d, labels = case(arguments.queries, dim, arguments.dtype)
    losses = {"h_infonce": h_infonce, "infonce": infonce, "multi_positive_infonce": multi_positive_infonce}
    names = tuple(losses) if arguments.queries <= arguments.most_dense_queries else ()
    implementations = {name: tuple(losses) for name in linear_memory()} | ({"dense": names[:2]} if names else {})
    steps = {
        (implementation, name): step(losses[name], implementation)
        for implementation, names in implementations.items()
        for name in names
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    values = {}
    for number in range(arguments.rounds + 1):
        for key, run in steps.items():
            start = time.perf_counter()
            for _ in range(arguments.repeats):
                loss, gradients = run(q, d, jnp.float32(0.05), labels)
            jax.block_until_ready((loss, gradients))
            if number:  # The first round compiles.
                seconds[key].append((time.perf_counter() - start) / arguments.repeats)
            values[key] = float(loss)

    def ratio(key: tuple[str, str], other: tuple[str, str]) -> float | None:
        if key not in seconds:
            return None
        return round(statistics.median(a / b for a, b in zip(seconds[key], seconds[other], strict=True)), 3)

    graded = {implementation: (implementation, "h_infonce") for implementation in implementations}
    against = {implementation: ratio(key, (implementation, "infonce")) for implementation, key in graded.items()}
    medians = {key: statistics.median(turns) for key, turns in seconds.items()}
    return {
        "queries": arguments.queries,
        "docs": arguments.queries,
        "dim": dim,
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "median_seconds": {" ".join(key): round(median, 5) for key, median in medians.items()},
        "share_of_peak": {
            implementation: share_of_peak(arguments, dim, medians[key]) for implementation, key in graded.items()
        },
        "h_infonce_against_infonce": against,
        "passes_of_infonce": {
            "positives": _POSITIVES,
            "against_h_infonce": round(_POSITIVES / against["streaming"], 2),
        },
        "dense_against_streaming": ratio(("dense", "h_infonce"), graded["streaming"]),
        "pallas_against_streaming": ratio(("pallas", "h_infonce"), graded["streaming"]),
        "loss": {" ".join(key): value for key, value in values.items()},
    }


def linear_memory() -> tuple[str, ...]:
    """Returns the implementations on this device that never store the whole score matrix."""
    import jax

    return ("streaming", "pallas") if jax.default_backend() in ("gpu", "tpu") else ("streaming",)


def share_of_peak(arguments: argparse.Namespace, dim: int, seconds: float) -> float | None:
    """Returns the share of the peak that the four matrix products (8 B N d) reach; None if the peak is not known."""
    import jax

    from crops_jax.training.flops import utilization

    if arguments.dtype != "bfloat16":
        return None
    flops = 8.0 * arguments.queries**2 * dim
    share = utilization(flops, seconds, devices=1, device_kind=jax.devices()[0].device_kind)
    return None if share is None else round(share, 3)


def gigabytes(
    queries: int,
    dim: int,
    dtype: str,
    *,
    devices: int = 1,
    exchange: str = "gather",
    implementation: str = "streaming",
) -> float:
    """Returns the gigabytes that the compiled h_infonce needs on each device in addition to arguments and results."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from crops_jax.labels import SparseLabels
    from crops_jax.losses import Split, h_infonce

    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    by_data = NamedSharding(mesh, PartitionSpec("data"))
    split = Split(mesh, exchange=exchange)  # type: ignore[arg-type]
    embeddings = jax.ShapeDtypeStruct((queries, dim), dtype, sharding=by_data)
    labels = SparseLabels(*[jax.ShapeDtypeStruct((queries, 32), jnp.int32, sharding=by_data)] * 2)

    def value(q, d, temperature, labels):
        return h_infonce(q, d, labels, temperature=temperature, implementation=implementation, split=split)

    gradient = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))
    lowered = gradient.lower(embeddings, embeddings, jax.ShapeDtypeStruct((), jnp.float32), labels)
    return round(lowered.compile().memory_analysis().temp_size_in_bytes / 1e9, 3)


def memory(arguments: argparse.Namespace, dim: int) -> list[dict]:
    import jax

    rows = []
    for queries, inf_cl in _INF_CL_GIGABYTES.items():
        row: dict = {"queries": queries, "dim": dim, "dtype": arguments.dtype}
        if queries <= 1 << 17:
            row["one_device"] = {
                implementation: gigabytes(queries, dim, arguments.dtype, implementation=implementation)
                for implementation in linear_memory()
            }
        if len(jax.devices()) >= _DEVICES:
            for exchange in ("gather", "ring"):
                row[f"each_of_8_{exchange}"] = gigabytes(
                    queries, dim, arguments.dtype, devices=_DEVICES, exchange=exchange
                )
        rows.append(
            {
                **row,
                "inf_cl_each_of_8": inf_cl,
                "open_clip_each_of_8": _OPEN_CLIP_GIGABYTES.get(queries, "out of memory"),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--queries", type=int, help="the number of queries and of documents; the default is 32768, or 8192 on a CPU"
    )
    parser.add_argument(
        "--dim", type=int, nargs="+", help="the dimensions for the times; the default is 768 256, or 256 on a CPU"
    )
    parser.add_argument("--memory-dim", type=int, nargs="+", help="the dimensions for the memory; the default is --dim")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="the type of the vectors; the default is bfloat16, or float32 on a CPU",
    )
    parser.add_argument("--repeats", type=int, help="the number of calls in a turn; the default is 10, or 1 on a CPU")
    for name, default, description in (
        ("rounds", 5, "the number of turns of each program"),
        ("most-dense-queries", 8192, "the maximum number of queries for which the dense implementation is measured"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    parser.add_argument("--only", choices=("times", "memory"), help="measure only one of the two")
    arguments = parser.parse_args()
    # These host devices are only for the compiler. On a GPU or TPU the real devices are used.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={_DEVICES}"
    import jax

    on_cpu = jax.default_backend() == "cpu"
    arguments.queries = arguments.queries or (8192 if on_cpu else 32768)
    arguments.dim = arguments.dim or ([256] if on_cpu else [768, 256])
    arguments.memory_dim = arguments.memory_dim or arguments.dim
    arguments.dtype = arguments.dtype or ("float32" if on_cpu else "bfloat16")
    arguments.repeats = arguments.repeats or (1 if on_cpu else 10)
    outcome: dict = {
        "benchmark": "loss",
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": os.cpu_count(),
    }
    if arguments.only != "memory":
        outcome["times"] = [times(arguments, dim) for dim in arguments.dim]
    if arguments.only != "times":
        rows = [row for dim in arguments.memory_dim for row in memory(arguments, dim)]
        outcome["gigabytes_beside_arguments_and_results"] = rows
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
