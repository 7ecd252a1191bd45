"""Time and memory of the losses: one line of JSON.

Time: forward and backward over the same random unit vectors, each program compiled and warmed up, then run in turn
(A B A B ...); medians, and the medians of ratios taken turn by turn. Grading costs what H-InfoNCE takes beyond plain
InfoNCE in the same implementation; passes_of_infonce is what one pass for each positive would take instead. On a GPU or
TPU the kernels are measured beside streaming, in bfloat16, and share_of_peak is that of the four matrix products that
forward and backward need.

Memory: what the compiled program holds beside arguments, loss and gradients, from the compiler, without running it, at
the sizes of Inf-CL's table (arXiv 2410.17243: InfoNCE without labels, GB on each of 8 GPUs), over 8 devices that share
one batch, and on a single device.

    python -m benchmarks.loss
"""

import argparse
import json
import os
import statistics
import time

from benchmarks.interleaved import processor

_DEVICES = 8
_INF_CL_GIGABYTES = {1 << 15: 0.18, 1 << 16: 0.36, 1 << 17: 0.72, 1 << 18: 1.45}
_OPEN_CLIP_GIGABYTES = {1 << 15: 2.27, 1 << 16: 8.63, 1 << 17: 33.6}
_POSITIVES = 4


def case(queries: int, dim: int, dtype: str):
    """Unit vectors; for each query _POSITIVES positives, and a document of each level 1 to 3, at random columns."""
    import jax.numpy as jnp
    import numpy as np

    from crops_jax.labels import SparseLabels

    random = np.random.default_rng(0)
    vectors = random.standard_normal((2, queries, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    levels = np.array([5, *[4] * (_POSITIVES - 1), 3, 2, 1], np.int32)
    # Distinct columns in each row: a random start and a stride.
    start = random.integers(0, queries, (queries, 1))
    columns = ((start + np.arange(len(levels))[None, :] * (queries // len(levels) - 1)) % queries).astype(np.int32)
    labels = SparseLabels(jnp.asarray(columns), jnp.broadcast_to(jnp.asarray(levels), columns.shape))
    return *(jnp.asarray(one, dtype) for one in vectors), labels


def step(loss, implementation: str):
    """The compiled loss with gradients in both embeddings and the temperature."""
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
    steps = {(one, name): step(losses[name], one) for one, names in implementations.items() for name in names}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    values = {}
    for number in range(arguments.rounds + 1):
        for key, run in steps.items():
            start = time.perf_counter()
            for _ in range(arguments.repeats):
                loss, gradients = run(q, d, jnp.float32(0.05), labels)
            jax.block_until_ready((loss, gradients))
            if number:  # the first one compiles
                seconds[key].append((time.perf_counter() - start) / arguments.repeats)
            values[key] = float(loss)

    def ratio(one: tuple[str, str], other: tuple[str, str]) -> float | None:
        if one not in seconds:
            return None
        return round(statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True)), 3)

    graded = {one: (one, "h_infonce") for one in implementations}
    against = {one: ratio(key, (one, "infonce")) for one, key in graded.items()}
    medians = {key: statistics.median(found) for key, found in seconds.items()}
    return {
        "queries": arguments.queries,
        "docs": arguments.queries,
        "dim": dim,
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "median_seconds": {" ".join(key): round(found, 5) for key, found in medians.items()},
        "share_of_peak": {one: share_of_peak(arguments, dim, medians[key]) for one, key in graded.items()},
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
    """The implementations here that never hold the score matrix."""
    import jax

    return ("streaming", "pallas") if jax.default_backend() in ("gpu", "tpu") else ("streaming",)


def share_of_peak(arguments: argparse.Namespace, dim: int, seconds: float) -> float | None:
    """Of the four matrix products that forward and backward need, 8 B N d; None where the peak is not known."""
    import jax

    from crops_jax.training.flops import utilization

    if arguments.dtype != "bfloat16":
        return None
    flops = 8.0 * arguments.queries**2 * dim
    found = utilization(flops, seconds, devices=1, device_kind=jax.devices()[0].device_kind)
    return None if found is None else round(found, 3)


def gigabytes(
    queries: int,
    dim: int,
    dtype: str,
    *,
    devices: int = 1,
    exchange: str = "gather",
    implementation: str = "streaming",
) -> float:
    """What the compiled h_infonce holds on each device beside arguments and results."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from crops_jax.labels import SparseLabels
    from crops_jax.losses import Split, h_infonce

    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("data"))
    split = Split(mesh, exchange=exchange)  # type: ignore[arg-type]
    embeddings = jax.ShapeDtypeStruct((queries, dim), dtype, sharding=place)
    labels = SparseLabels(*[jax.ShapeDtypeStruct((queries, 32), jnp.int32, sharding=place)] * 2)

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
                one: gigabytes(queries, dim, arguments.dtype, implementation=one) for one in linear_memory()
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
    parser.add_argument("--queries", type=int, help="and as many documents; by default 32768, on a CPU 8192")
    parser.add_argument("--dim", type=int, nargs="+", help="by default 768 256, on a CPU 256")
    parser.add_argument("--memory-dim", type=int, nargs="+", help="by default as --dim")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default bfloat16, on a CPU float32")
    parser.add_argument("--repeats", type=int, help="calls of a turn; by default 10, on a CPU 1")
    for name, default in (("rounds", 5), ("most-dense-queries", 8192)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", choices=("times", "memory"))
    arguments = parser.parse_args()
    # Devices that exist for the compiler only: on a GPU or TPU the real ones are taken.
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
