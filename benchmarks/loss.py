"""Time and memory of the losses: one line of JSON.

Time: forward and backward over the same random unit vectors, each program compiled and warmed up, then run in turn
(A B A B ...); medians, and the medians of ratios taken turn by turn. Grading costs what H-InfoNCE takes beyond plain
InfoNCE in the same implementation; passes_of_infonce is what one pass for each positive would take instead.

Memory: what the compiled program holds beside arguments, loss and gradients, from the compiler, without running it, at
the sizes of Inf-CL's table (arXiv 2410.17243: InfoNCE without labels, GB on each of 8 GPUs), over 8 devices that share
one batch, and on a single device.

    python -m benchmarks.loss --queries 8192 --dim 256
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


def times(arguments: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp

    from crops_jax.losses import h_infonce, infonce, multi_positive_infonce

    q, d, labels = case(arguments.queries, arguments.dim, arguments.dtype)
    losses = {"h_infonce": h_infonce, "infonce": infonce, "multi_positive_infonce": multi_positive_infonce}
    steps = {("streaming", name): step(loss, "streaming") for name, loss in losses.items()}
    if arguments.queries <= arguments.most_dense_queries:
        steps |= {("dense", name): step(losses[name], "dense") for name in ("h_infonce", "infonce")}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    values = {}
    for number in range(arguments.rounds + 1):
        for key, run in steps.items():
            start = time.perf_counter()
            loss, _ = jax.block_until_ready(run(q, d, jnp.float32(0.05), labels))
            if number:  # the first one compiles
                seconds[key].append(time.perf_counter() - start)
            values[key] = float(loss)

    def ratio(one: tuple[str, str], other: tuple[str, str]) -> float | None:
        if one not in seconds:
            return None
        return round(statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True)), 3)

    graded, plain = ("streaming", "h_infonce"), ("streaming", "infonce")
    return {
        "queries": arguments.queries,
        "docs": arguments.queries,
        "dim": arguments.dim,
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "median_seconds": {" ".join(key): round(statistics.median(found), 4) for key, found in seconds.items()},
        "h_infonce_against_infonce": {
            "streaming": ratio(graded, plain),
            "dense": ratio(("dense", "h_infonce"), ("dense", "infonce")),
        },
        "passes_of_infonce": {
            "positives": _POSITIVES,
            "against_h_infonce": round(_POSITIVES / ratio(graded, plain), 2),
        },
        "dense_against_streaming": ratio(("dense", "h_infonce"), graded),
        "loss": {" ".join(key): value for key, value in values.items()},
    }


def gigabytes(queries: int, dim: int, dtype: str, *, devices: int = 1, exchange: str = "gather") -> float:
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
        return h_infonce(q, d, labels, temperature=temperature, implementation="streaming", split=split)

    gradient = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))
    lowered = gradient.lower(embeddings, embeddings, jax.ShapeDtypeStruct((), jnp.float32), labels)
    return round(lowered.compile().memory_analysis().temp_size_in_bytes / 1e9, 3)


def memory(arguments: argparse.Namespace) -> list[dict]:
    import jax

    rows = []
    for queries, inf_cl in _INF_CL_GIGABYTES.items():
        row = {"queries": queries, "dim": arguments.memory_dim, "dtype": arguments.dtype}
        if queries <= 1 << 17:
            row["one_device"] = gigabytes(queries, arguments.memory_dim, arguments.dtype)
        if len(jax.devices()) >= _DEVICES:
            for exchange in ("gather", "ring"):
                row[f"each_of_8_{exchange}"] = gigabytes(
                    queries, arguments.memory_dim, arguments.dtype, devices=_DEVICES, exchange=exchange
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
    for name, default in (
        ("queries", 8192),
        ("dim", 256),
        ("rounds", 5),
        ("most-dense-queries", 8192),
        ("memory-dim", 256),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", choices=("times", "memory"))
    arguments = parser.parse_args()
    # Devices that exist for the compiler only: on a GPU or TPU the real ones are taken.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={_DEVICES}"
    import jax

    outcome: dict = {
        "benchmark": "loss",
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": os.cpu_count(),
    }
    if arguments.only != "memory":
        outcome["times"] = times(arguments)
    if arguments.only != "times":
        outcome["gigabytes_beside_arguments_and_results"] = memory(arguments)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
