"""Trains an encoder with sentence-transformers on pairs of texts: the peer of launch.compare --real.

    .venv-peers/bin/python benchmarks/train_sentence_transformers.py --weights FOLDER --pairs pairs.parquet --epochs 3 \
        --batch 64 --max-tokens 128 --learning-rate 2e-5 --output TRAINED

The loss is MultipleNegativesRankingLoss with its default scale (20). As in the package's own trainer with the batch
sampler NO_DUPLICATES, no text occurs twice in a batch, the optimiser is AdamW without weight decay, gradients have a
norm of at most 1, and the model keeps its dropout. The learning rate rises over the first 10 % of the steps, and then
falls linearly to 0. The trainer itself needs the package datasets and is not used. The last line of standard output is
one line of JSON. TRAINED appears whole, and has no result of an earlier call in it.
"""

import argparse
import json
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FAILED = 4
"""The exit status of launch programs whose work failed."""


def batches_without_duplicates(
    pairs: Sequence[tuple[str, str]], *, batch: int, generator: random.Random
) -> Iterator[list[int]]:
    """Yields the batches of one epoch, in which every pair occurs once and no batch has a text twice.

    A pair whose query or document is in the batch already waits for a later batch, as in sentence-transformers'
    NoDuplicatesBatchSampler. Therefore the last batches can be small.
    """
    waiting = list(range(len(pairs)))
    generator.shuffle(waiting)
    while waiting:
        chosen: list[int] = []
        later: list[int] = []
        texts: set[str] = set()
        for place, index in enumerate(waiting):
            if texts.isdisjoint(pairs[index]):
                chosen.append(index)
                texts.update(pairs[index])
            else:
                later.append(index)
            if len(chosen) == batch:
                later += waiting[place + 1 :]
                break
        yield chosen
        waiting = later


def plan(pairs: Sequence[tuple[str, str]], *, batch: int, epochs: float, steps: int, seed: int) -> list[list[int]]:
    """Returns all batches of the training: `steps` of them, or those that present epochs x len(pairs) pairs."""
    generator = random.Random(seed)
    wanted, presented, batches = round(epochs * len(pairs)), 0, []
    while (len(batches) < steps) if steps else (presented < wanted):
        for chosen in batches_without_duplicates(pairs, batch=batch, generator=generator):
            if (len(batches) >= steps) if steps else (presented >= wanted):
                break
            batches.append(chosen)
            presented += len(chosen)
    return batches


def train(arguments: argparse.Namespace) -> dict[str, float | int | str]:
    """Trains and writes the folder, and returns what is printed."""
    import pyarrow.parquet as pq
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import get_linear_schedule_with_warmup

    table = pq.read_table(arguments.pairs, columns=["query", "document"])
    pairs = list(zip(table["query"].to_pylist(), table["document"].to_pylist(), strict=True))
    batches = plan(pairs, batch=arguments.batch, epochs=arguments.epochs, steps=arguments.steps, seed=arguments.seed)
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(arguments.weights, device=device, local_files_only=True)
    model.max_seq_length = arguments.max_tokens
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.0)
    warmup = round(0.1 * len(batches))
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, len(batches))
    model.train()
    start, value = time.monotonic(), 0.0
    for number, chosen in enumerate(batches, start=1):
        sides = zip(*(pairs[index] for index in chosen), strict=True)
        features = [tensors(model.preprocess(list(texts)), device) for texts in sides]
        optimizer.zero_grad()
        batch_loss = loss(features, None)
        batch_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        value = float(batch_loss.detach())
        if number % 10 == 0 or number == len(batches):
            seconds = time.monotonic() - start
            print(f"step {number} of {len(batches)}: loss {value:.4f}, {seconds:.0f} s", file=sys.stderr, flush=True)
    save(model, Path(arguments.output))
    presented = sum(map(len, batches))
    return {"output": arguments.output, "steps": len(batches), "pairs": presented, "loss": round(value, 4)}


def tensors(features: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Returns the features of a batch with the tensors on a device. Those that are no tensors are unchanged."""
    return {name: part.to(device) if hasattr(part, "to") else part for name, part in features.items()}


def save(model: Any, output: Path) -> None:
    """Writes the folder beside its place first, so that it appears whole."""
    temporary = output.with_name(f".{output.name}.temporary")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(str(temporary), create_model_card=False)
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="the folder of the encoder to start from")
    parser.add_argument("--pairs", required=True, help="a Parquet file with the columns query and document")
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument("--epochs", type=float, default=1.0, help="the number of passes over the pairs")
    parser.add_argument("--steps", type=int, default=0, help="the number of steps; 0: --epochs decides")
    parser.add_argument("--batch", type=int, default=64, help="the number of pairs in a batch")
    parser.add_argument("--max-tokens", type=int, default=128, help="the maximum number of tokens of a text")
    parser.add_argument("--learning-rate", type=float, default=2e-5, help="the peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the order of the pairs and of dropout")
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        print(json.dumps(train(parse())))
    except Exception:
        traceback.print_exc()
        sys.exit(FAILED)
