"""Our encoders against transformers (torch) and sentence-transformers, which run in .venv-peers."""

import json
import subprocess
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from crops_jax import pretrained
from crops_jax.embeddings.encoder import Encoder
from tests.model_folders import (
    TEXTS,
    VOCABULARY,
    add_modules,
    minilm,
    random_model,
    small_config,
    write_bert,
    write_gemma_tokenizer,
    write_mpnet_tokenizer,
    write_qwen_tokenizer,
    write_tokenizer,
)
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.peers]

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PATIENCE_SECONDS = 600
LENGTHS = [f"{'red lamp garden ' * n}{n}" for n in (1, 2, 3, 5, 8, 11, 13, 21, 40, 80, 120, 400)]


@pytest.fixture(scope="module")
def process():
    """One process for all tests of this file: it needs longer to load torch than to encode."""
    if not PYTHON.exists():
        pytest.skip("no .venv-peers; make peers makes it")
    script = Path(__file__).parent / "encode_with_sentence_transformers.py"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([str(PYTHON), str(script)], text=True, encoding="utf-8", **pipes) as started:
        yield started
        started.stdin.close()


@pytest.fixture
def peer(process, tmp_path):
    def ask(folder, texts, *, dim=None):
        output = tmp_path / "output.npz"
        request = {"folder": str(folder), "texts": texts, "dim": dim, "output": str(output)}
        impatience = threading.Timer(PATIENCE_SECONDS, process.kill)
        impatience.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            assert str(output) in map(str.rstrip, process.stdout), "the peer ended before it had answered"
        finally:
            impatience.cancel()
        with np.load(output, allow_pickle=False) as found:
            return dict(found)

    return ask


def largest_difference(encoder, found, texts):
    """Between token states, over all texts, padded here and alone there; the token ids must be equal."""
    encoded = encoder.tokenizer.encode(texts, max_tokens=encoder.max_tokens("document"))
    rows = np.full((len(encoded), max(map(len, encoded))), -1, np.int32)
    for i, tokens in enumerate(encoded):
        np.testing.assert_array_equal(tokens, found[f"tokens_{i}"])
        rows[i, : len(tokens)] = tokens
    states = np.asarray(jax.jit(encoder.model.tower)(rows))
    return max(np.abs(states[i, : len(tokens)] - found[f"states_{i}"]).max() for i, tokens in enumerate(encoded))


def cosines(ours, theirs):
    return (ours * theirs).sum(1) / np.linalg.norm(theirs, axis=1)


def report(what, value):
    print(f"{what}: {value:.3g}")


def test_minilm(peer):
    texts = TEXTS + LENGTHS
    encoder = pretrained.load_encoder(minilm())
    found = peer(minilm(), texts)
    difference = largest_difference(encoder, found, texts)
    report("MiniLM, token states, largest difference", difference)
    assert difference < 1e-4
    vectors = encoder.encode(texts)
    report("MiniLM, vectors, largest difference", np.abs(vectors - found["encode"]).max())
    np.testing.assert_allclose(vectors, found["encode"], atol=1e-5)


@pytest.mark.parametrize(("offset", "pooling"), [(0, "mean"), (1, "cls"), (1, "lasttoken")])
def test_small_towers_of_odd_sizes(peer, tmp_path, offset, pooling):
    folder = write_bert(tmp_path / "bert", position_offset=offset, layer_norm_epsilon=1e-5, seed=offset, max_length=75)
    add_modules(folder, pooling={"pooling_mode": pooling}, prompts={"query": "the red ", "document": "a "})
    encoder = pretrained.load_encoder(folder)
    texts = TEXTS + LENGTHS
    found = peer(folder, texts)
    difference = largest_difference(encoder, found, texts)
    report(f"small, offset {offset}, {pooling}, token states, largest difference", difference)
    assert difference < 1e-4
    for tower in (None, "query", "document"):
        np.testing.assert_allclose(encoder.encode(texts, tower=tower), found[tower or "encode"], atol=1e-5)


QWEN = {"heads": 6, "key_value_heads": 2, "head_width": 8, "layer_norm_epsilon": 1e-6, "rotary_base": 1e4}


# The prompts that EmbeddingGemma has.
PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}
GEMMA = {"family": "gemma3", "layers": 7, "global_every": 3, "local_window": 4, "local_rotary_base": 20.0}
GEMMA |= {"heads": 6, "key_value_heads": 2, "head_width": 10, "query_scalar": 7, "rotary_base": 500.0}
GEMMA |= {"layer_norm_epsilon": 1e-6}
OTHER_TOKENIZERS = {"bert": write_tokenizer, "nomic_bert": write_tokenizer}
OTHER_TOKENIZERS |= {"mpnet": write_mpnet_tokenizer, "gemma3": write_gemma_tokenizer}


@pytest.mark.parametrize(
    "encoder",
    [
        {"pooling": "first"},
        {"position_offset": 1, "pooling": "last"},
        {"family": "qwen2", "pooling": "last", **QWEN},
        {"family": "qwen3", "pooling": "last", **QWEN},
        {"family": "mistral", "pooling": "last", **QWEN},
        {"family": "mpnet", "position_offset": 2, "max_positions": 177, "max_document_tokens": 170}
        | {"max_query_tokens": 170},
        {"family": "modernbert", "layers": 5, "local_window": 4, "layer_norm_epsilon": 1e-5, "width": 36},
        {"family": "nomic_bert", "width": 36, "rotary_base": 100.0, "layer_norm_epsilon": 1e-12},
        {**GEMMA, "dense_widths": (52, 30), "dense_biases": (False, False)}
        | {"dense_activations": ("identity", "identity")},
        {**GEMMA, "layers": 4, "global_every": 2, "key_value_heads": 3, "query_scalar": 0, "pooling": "first"},
        {"pooling": "first", "dense_widths": (34,), "dense_biases": (True,), "dense_activations": ("tanh",)},
        {"dense_widths": (17, 11, 19), "dense_biases": (True, False, True)}
        | {"dense_activations": ("gelu", "relu", "silu")},
    ],
)
def test_an_exported_folder(peer, tmp_path, encoder):
    write = OTHER_TOKENIZERS.get(encoder.get("family", "bert"), write_qwen_tokenizer)
    config = small_config(**{"max_query_tokens": 40, "vocabulary_size": write(tmp_path / "tokenizer")} | encoder)
    prompts = PROMPTS if config.encoder.family == "gemma3" else {"query": "the red "}
    exported = Encoder(random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer", prompts=prompts)
    pretrained.export(exported, tmp_path / "folder")
    # A text without a token has a zero vector here and none there: Qwen puts no token around a text.
    texts = [text for text in TEXTS + LENGTHS if text.strip()]
    found = peer(tmp_path / "folder", texts)
    assert not found["missing"].size
    again = pretrained.load_encoder(tmp_path / "folder")
    np.testing.assert_allclose(again.encode(texts), exported.encode(texts), atol=1e-6)
    difference = largest_difference(again, found, texts)
    report(f"exported {encoder}, token states, largest difference", difference)
    assert difference < 1e-4
    for tower in (None, "query", "document"):
        found_cosines = cosines(exported.encode(texts, tower=tower), found[tower or "encode"])
        report(f"exported {encoder}, {tower}, least cosine", found_cosines.min())
        assert found_cosines.min() > 0.9999


@pytest.mark.parametrize(
    "dense", [{}, {"dense_widths": (19,), "dense_biases": (True,), "dense_activations": ("tanh",)}]
)
def test_an_exported_folder_of_two_towers(peer, tmp_path, dense):
    write_tokenizer(tmp_path / "tokenizer")
    config = small_config(shared_towers=False, **dense)
    exported = Encoder(
        random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer", prompts={"query": "the "}
    )
    pretrained.export(exported, tmp_path / "folder")
    texts = TEXTS + LENGTHS
    found = peer(tmp_path / "folder", texts)
    for tower in ("query", "document"):
        assert cosines(exported.encode(texts, tower=tower), found[tower]).min() > 0.9999
    np.testing.assert_allclose(exported.encode(texts), found["encode"], atol=1e-5)
    assert np.abs(found["query"] - found["document"]).max() > 0.1


@pytest.mark.parametrize("shared", [True, False])
def test_an_exported_hashed_tower(peer, tmp_path, shared):
    write_tokenizer(tmp_path / "tokenizer")
    encoder = {
        "family": "hashed",
        "hashed_features": ("unigrams",),
        "hash_buckets": len(VOCABULARY),
        "feature_width": 14,
        "feed_forward_width": 52,
        "shared_towers": shared,
        "max_query_tokens": 40,
    }
    config = small_config(**encoder)
    exported = Encoder(
        random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer", prompts={"query": "the red "}
    )
    pretrained.export(exported, tmp_path / "folder")
    texts = TEXTS + LENGTHS
    found = peer(tmp_path / "folder", texts)
    for tower in (None, "query", "document"):
        least = cosines(exported.encode(texts, tower=tower), found[tower or "encode"]).min()
        report(f"hashed, shared towers {shared}, {tower}, least cosine", least)
        assert least > 0.9999


def test_leading_components_of_an_exported_folder(peer, tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    config = small_config()
    exported = Encoder(
        random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer", trained_dims=(8, 16, 30)
    )
    pretrained.export(exported, tmp_path / "folder")
    texts = TEXTS + LENGTHS
    assert peer(tmp_path / "folder", texts)["encode"].shape[1] == 30
    found = peer(tmp_path / "folder", texts, dim=8)
    np.testing.assert_allclose(exported.encode(texts, dim=8), found["encode"], atol=1e-5)


def test_a_trained_minilm_exported(peer, tmp_path):
    encoder = pretrained.load_encoder(minilm())
    pretrained.export(encoder, tmp_path / "folder")
    found = peer(tmp_path / "folder", TEXTS + LENGTHS)
    assert not found["missing"].size
    least = cosines(encoder.encode(TEXTS + LENGTHS), found["encode"]).min()
    report("MiniLM exported, least cosine", least)
    assert least > 0.9999
