"""What giving freed memory back to the kernel costs a training step on this CPU: interleaved processes, A B A B.

    python -m benchmarks.page_faults

Prints one line of JSON: median seconds and page faults of a step with and without
crops_jax.devices.process_memory, and the ratio of the seconds.
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


def measured(*, keep: bool) -> tuple[float, int]:
    """Median seconds of a step, and the page faults of the last one."""
    done = subprocess.run([sys.executable, "-c", _STEP.format(keep=keep)], check=True, capture_output=True, text=True)
    seconds, faults = done.stdout.splitlines()[-1].split()
    return float(seconds), int(faults)


def main() -> None:
    with_it, without = [], []
    for _ in range(5):
        without.append(measured(keep=False))
        with_it.append(measured(keep=True))
    ratio = statistics.median(a / b for (a, _), (b, _) in zip(without, with_it, strict=True))
    (default, default_faults), (kept, kept_faults) = (map(statistics.median, zip(*one)) for one in (without, with_it))
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
