"""Measures how much time statistics by level and a moving average of the weights add to a training step.

    python benchmarks/step_options.py --rounds 20

The model is a MiniLM with random weights, and batches have made-up graded labels. Three train steps alternate in one
process: with statistics by level, as every run has them; without them (their function is replaced by zeros, only for
the comparison); and with them and a moving average. Each round runs every step once, in a rotating order. The program
prints one line of JSON: the median seconds of a step, by the clock and by the processor; for both, the median over
rounds of the ratio to the step without statistics; and the ratios of the floating point operations and of the bytes
that the compiler counts.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))
from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before NumPy starts a thread.

import jax
import jax.numpy as jnp
import numpy as np

from crops_jax.config import Config
from crops_jax.devices import sharding
from crops_jax.devices.processor import processor
from crops_jax.hashing import document_id_words
from crops_jax.input_pipeline import Batch
from crops_jax.losses.level_statistics import LevelStatistics
from crops_jax.models.dual_encoder import abstract_dual_encoder
from crops_jax.text.packing import PADDING_TOKEN, PackedTexts, assign_rows, lay_out
from crops_jax.training.dual_encoder import initial_parameters
from crops_jax.training.state import initial_state
from crops_jax.training.step import device_batch, make_train_step

QUERY_TOKENS, COLUMNS, LABELLED = 6, 2, 32
STATISTICS = "crops_jax.losses.configured.level_statistics"

Times = list[tuple[float, float]]
"""The seconds of a step in each round, by the clock and by the processor."""


def made_up_batch(config: Config, *, tokens: int) -> Batch:
    """Returns a batch: queries of 6 tokens with two documents of about `tokens` tokens and 32 labels each."""
    random, queries = np.random.default_rng(0), config.data.queries_per_batch
    lengths = [QUERY_TOKENS] * queries + random.integers(tokens // 2, tokens * 3 // 2, queries * COLUMNS).tolist()
    texts = [random.integers(0, config.encoder.vocabulary_size, length).astype(np.int32) for length in lengths]
    rows = assign_rows(lengths, row_tokens=config.encoder.max_document_tokens)
    laid_out = lay_out(texts, rows, row_tokens=config.encoder.max_document_tokens, num_rows=rows.count)
    query_tokens = np.full((queries, config.encoder.max_query_tokens), PADDING_TOKEN, np.int32)
    query_tokens[:, :QUERY_TOKENS] = texts[:queries]
    ids = document_id_words(str(number) for number in range(queries * COLUMNS))
    labelled = np.stack([random.permutation(len(ids))[:LABELLED] for _ in range(queries)])
    return Batch(
        texts=(PackedTexts(*(part[None] for part in laid_out)),),
        query_tokens=query_tokens,
        document_ids=ids,
        labelled_ids=ids[labelled],
        labelled_levels=random.integers(1, 6, labelled.shape).astype(np.int32),
    )


def no_statistics(*_) -> LevelStatistics:
    return LevelStatistics(jnp.zeros(5, jnp.int32), jnp.zeros(5, jnp.int32), jnp.zeros(5))


class Step:
    """A compiled train step with its state."""

    def __init__(self, config: Config, batch: Batch):
        mesh = sharding.make_mesh(config.mesh)
        self.batch = device_batch(batch, mesh)
        self.state = initial_state(initial_parameters(config, seed=0, mesh=mesh), config, steps=10**6, mesh=mesh)
        step = make_train_step(abstract_dual_encoder(config), config, steps=10**6, mesh=mesh)
        self.step = step.lower(self.state, self.batch).compile()
        self.seconds()

    def seconds(self) -> tuple[float, float]:
        """Runs one step, and returns its seconds by the clock and by the processor."""
        start = time.perf_counter(), time.process_time()
        self.state, _ = jax.block_until_ready(self.step(self.state, self.batch))
        return time.perf_counter() - start[0], time.process_time() - start[1]

    def compiler_count(self, name: str) -> float:
        return self.step.cost_analysis()[name]


def measure(arguments: argparse.Namespace) -> dict:
    config = Config().replace(
        data={"queries_per_batch": arguments.batch, "documents_per_query": COLUMNS, "labels_per_query": LABELLED},
        mesh={"data": 1},
    )
    batch = made_up_batch(config, tokens=arguments.tokens)
    with mock.patch(STATISTICS, no_statistics):
        steps = {"without": Step(config, batch)}
    steps["statistics"] = Step(config, batch)
    steps["average"] = Step(config.replace(optimizer={"ema_decay": 0.999}), batch)
    seconds = in_turn(steps, rounds=arguments.rounds)
    return {
        "benchmark": "step_options",
        "batch": arguments.batch,
        "tokens": int((batch.texts[0].tokens >= 0).sum()),
        "rounds": arguments.rounds,
        "processor": processor(),
        "cores": os.cpu_count(),
        "seconds": {name: medians(times) for name, times in seconds.items()},
        "against_without": {
            name: {
                "seconds": ratios(seconds[name], seconds["without"]),
                "operations": round(steps[name].compiler_count("flops") / steps["without"].compiler_count("flops"), 4),
                "bytes": round(
                    steps[name].compiler_count("bytes accessed") / steps["without"].compiler_count("bytes accessed"), 4
                ),
            }
            for name in steps
            if name != "without"
        },
    }


def in_turn(steps: Mapping[str, Step], *, rounds: int) -> dict[str, Times]:
    """Returns the seconds of each step in each round. A round runs every step once, in a rotating order."""
    seconds: dict[str, Times] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(steps[name].seconds())
    return seconds


def medians(times: Times) -> dict[str, float]:
    """Returns the median seconds by the clock and by the processor."""
    return {name: round(statistics.median(column), 4) for name, column in zip(("clock", "processor"), zip(*times))}


def ratios(times: Times, others: Times) -> dict[str, float]:
    """Returns the medians, over rounds, of the seconds of one step as a multiple of those of another."""
    return medians([(a[0] / b[0], a[1] / b[1]) for a, b in zip(times, others, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, description in (
        ("batch", 32, "the number of queries in a batch"),
        ("tokens", 40, "the mean number of tokens of a document"),
        ("rounds", 15, "the number of steps of each kind"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
