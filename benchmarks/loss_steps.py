"""Measures the time of a training step with each loss of the comparison's ablation, in turn.

    python benchmarks/loss_steps.py --rounds 20

The towers and the batch are those of configs/generated_world.py, with random weights and made-up texts and labels. The
losses are the systems of launch.compare that its ablation of the loss shows. Each round runs a step with every loss
once, in a rotating order, in one process. The program prints one line of JSON: the median seconds of a step, by the
clock and by the processor; and for both, the median over rounds of the ratio to the step with H-InfoNCE.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before NumPy starts a thread.

import numpy as np

from benchmarks.step_options import LABELLED, Step, in_turn, made_up_batch, medians, ratios
from configs.generated_world import CONFIG
from crops_jax.devices.processor import processor
from launch.comparison.systems import SYSTEMS

REFERENCE = "crops"


def measure(arguments: argparse.Namespace) -> dict:
    base = CONFIG.replace(data={"labels_per_query": LABELLED}, mesh={"data": 1})
    batch = made_up_batch(base, tokens=arguments.tokens)
    systems = {name: system for name, system in SYSTEMS.items() if "losses" in system.groups}
    configs = {name: base.replace(**system.config) for name, system in systems.items()}
    scores = np.random.default_rng(1).random(batch.labelled_levels.shape, np.float32)
    steps = {
        name: Step(configs[name], batch._replace(labelled_scores=scores) if system.scored else batch)
        for name, system in systems.items()
    }
    seconds = in_turn(steps, rounds=arguments.rounds)
    return {
        "benchmark": "loss_steps",
        "queries": base.data.queries_per_batch,
        "documents_per_query": base.data.documents_per_query,
        "tokens": int((batch.texts[0].tokens >= 0).sum()),
        "rounds": arguments.rounds,
        "processor": processor(),
        "cores": os.cpu_count(),
        "losses": {name: config.loss.name for name, config in configs.items()},
        "seconds": {name: medians(times) for name, times in seconds.items()},
        "against_h_infonce": {name: ratios(times, seconds[REFERENCE]) for name, times in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32, help="the mean number of tokens of a document")
    parser.add_argument("--rounds", type=int, default=20, help="the number of steps with each loss")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
