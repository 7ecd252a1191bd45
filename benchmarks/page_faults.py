"""Measures how much time a training step loses on this CPU if freed memory is returned to the kernel.

    python -m benchmarks.page_faults

Processes with and without crops_jax.devices.process_memory alternate (A B A B). The program prints one line of JSON:
the median seconds and page faults of a step in both cases, and the ratio of the seconds.
"""

import json
import platform
import statistics
import subprocess
import sys

_STEP = """
import resource, sys, time
from crops_jax.devices import process_memory
if {keep}: assert process_memory.keep_freed_memory()
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from crops_jax.models.dual_encoder import DualEncoder
from crops_jax.program import load_config
config = load_config("tiny_cpu")
model = DualEncoder(config.encoder, initial_temperature=config.loss.initial_temperature, rngs=nnx.Rngs(0))
graph, parameters = nnx.split(model)
tokens = np.random.default_rng(0).integers(0, 4096, (256, config.encoder.max_document_tokens), np.int32)
step = jax.jit(jax.value_and_grad(lambda p, t: nnx.merge(graph, p).encode_documents(t).sum()))
seconds, faults = [], 0
for _ in range(13):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    jax.block_until_ready(step(parameters, tokens))
    seconds.append(time.perf_counter() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sorted(seconds[3:])[5], faults)
"""


def measure(*, keep: bool) -> tuple[float, int]:
    """Returns the median seconds of a step, and the page faults of the last step."""
    done = subprocess.run([sys.executable, "-c", _STEP.format(keep=keep)], check=True, capture_output=True, text=True)
    seconds, faults = done.stdout.splitlines()[-1].split()
    return float(seconds), int(faults)


def main() -> None:
    with_kept, without = [], []
    for _ in range(5):
        without.append(measure(keep=False))
        with_kept.append(measure(keep=True))
    ratio = statistics.median(a / b for (a, _), (b, _) in zip(without, with_kept, strict=True))
    (default, default_faults), (kept, kept_faults) = (
        map(statistics.median, zip(*runs)) for runs in (without, with_kept)
    )
    print(
        json.dumps(
            {
                "benchmark": "page_faults",
                "processor": platform.processor() or platform.machine(),
                "seconds_default": round(default, 4),
                "seconds_kept": round(kept, 4),
                "page_faults_default": default_faults,
                "page_faults_kept": kept_faults,
                "speedup": round(ratio, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
