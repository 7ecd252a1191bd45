"""Compares the speed of embedding with sentence-transformers: same weights and texts, tokenisation included.

    python benchmarks/embedding.py --texts texts.parquet --count 2000

The program prints one line of JSON. Both systems are measured in turn, and in bfloat16 on a GPU. "unpadded" is
sentence-transformers with FlashAttention 2, if it is installed. "unlocked" is sentence-transformers with a matrix
library that uses all features of an AMD processor. representax is measured too, in float32, if `make representax`
installed it. Without --texts, texts are made up with a mean length of --tokens.
"""

import argparse
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
from benchmarks.training import MAX_TOKENS, made_up_pairs, weights
from crops_jax.devices.processor import processor


def read_texts(arguments: argparse.Namespace) -> list[str]:
    if not arguments.texts:
        return [document for _, document in made_up_pairs(arguments.count, tokens=arguments.tokens)]
    import pyarrow.parquet as pq

    return pq.read_table(arguments.texts, columns=["document"])["document"].to_pylist()[: arguments.count]


def serve_crops_jax(texts: list[str]) -> None:
    import jax

    from crops_jax.embeddings.encoder import Encoder
    from crops_jax.models.dual_encoder import from_parameters
    from crops_jax.pretrained import load_encoder

    encoder = load_encoder(weights(), max_tokens=MAX_TOKENS)
    if jax.default_backend() != "cpu":
        config = encoder.config.replace(encoder={"compute_dtype": "bfloat16"})
        model = from_parameters(config, encoder.parameters)
        encoder = Encoder(model, config=config, tokenizer_folder=encoder.tokenizer_folder, prompts=encoder.prompts)
    serve(lambda: {"some": encoder.encode(texts)[:50].tolist()})


def serve_peer(texts: list[str], name: str) -> None:
    model = peer_model(weights(), name)
    model.max_seq_length = MAX_TOKENS
    serve(lambda: {"some": model.encode(texts, show_progress_bar=False)[:50].tolist()})


def measure(arguments: argparse.Namespace) -> dict:
    flags = [f"--count={arguments.count}", f"--tokens={arguments.tokens}"]
    flags += [f"--texts={arguments.texts}"] if arguments.texts else []
    systems = {"crops_jax": our_system(__file__, flags), **peer_systems(__file__, flags)}
    systems |= representax_systems(__file__, flags)
    with tempfile.TemporaryDirectory() as folder:
        systems = with_torch_unlocked(systems, "sentence_transformers", Path(folder))
        answers = alternate(systems, rounds=arguments.rounds)
    median_seconds = medians(answers)
    outcome = {
        "benchmark": "embedding",
        "texts": "given" if arguments.texts else f"made up, mean {arguments.tokens} tokens",
        "count": arguments.count,
        "rounds": arguments.rounds,
        "processor": processor(),
        "cores": os.cpu_count(),
        "texts_per_second": {name: round(arguments.count / seconds, 1) for name, seconds in median_seconds.items()},
        "speed_against": {
            name: round(seconds / median_seconds["crops_jax"], 3)
            for name, seconds in median_seconds.items()
            if name != "crops_jax"
        },
    }
    vectors = {name: np.asarray(turns[-1]["some"]) for name, turns in answers.items()}
    for name, key in (("sentence_transformers", "least_cosine"), ("representax", "least_cosine_of_representax")):
        if name in vectors:
            outcome[key] = float((vectors["crops_jax"] * vectors[name]).sum(axis=1).min())
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", help="a Parquet table with a column document")
    parser.add_argument("--tokens", type=float, default=60, help="the mean number of tokens of made-up texts")
    for name, default, description in (
        ("count", 2000, "the number of texts"),
        ("rounds", 5, "the number of turns of each system"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "crops_jax":
        serve_crops_jax(read_texts(arguments))
    elif arguments.serve == "representax":
        serve(representax_peer.embedding(read_texts(arguments), weights(), max_tokens=MAX_TOKENS))
    elif arguments.serve:
        serve_peer(read_texts(arguments), arguments.serve)
    else:
        print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
