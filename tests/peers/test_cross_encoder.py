"""Our cross-encoder against transformers' BertForSequenceClassification, which runs in .venv-peers."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from crops_jax.discriminator.cross_encoder import CrossEncoderDiscriminator
from crops_jax.models.cross_encoder import from_parameters
from crops_jax.pretrained.folder import describe
from crops_jax.text import tokenizer
from crops_jax.text.pair_tokens import TokenizedPairs
from crops_jax.training.cross_encoder import initial_parameters
from tests.model_folders import ONE_DEVICE, VOCABULARY, small_config, write_tokenizer
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.peers]

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PAIRS = [
    ("red shoe", "blue lamp for the garden"),
    ("red", "a"),
    ("garden hose", "hose " * 60),
    ("the lamp " * 9, "red " * 40),
    ("東京", "red 東京 shoe"),
    ("x9 abc", "a b c d e f"),
]


def test_logits_tokens_and_types_are_those_of_transformers(tmp_path):
    if not PYTHON.exists():
        pytest.skip("no .venv-peers; make peers makes it")
    folder = tmp_path / "folder"
    write_tokenizer(folder)
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 52,
        "max_position_embeddings": 77,
        "layer_norm_eps": 1e-5,
    }
    request, output = tmp_path / "request.json", tmp_path / "output.npz"
    request.write_text(json.dumps({"folder": str(folder), "sizes": sizes, "pairs": PAIRS}))
    script = Path(__file__).parent / "score_with_transformers.py"
    subprocess.run([str(PYTHON), str(script), str(request), str(output)], check=True, timeout=600)
    with np.load(output, allow_pickle=False) as found:
        expected = dict(found)
    config = small_config(**describe(folder).sizes, weights=str(folder)).encoder
    queries, documents = zip(*PAIRS, strict=True)
    pairs = TokenizedPairs(queries, documents, tokenizer=tokenizer.load(folder), max_tokens=40)
    for i, length in enumerate(pairs.lengths.tolist()):
        tokens, types = pairs.rows(np.array([i]), width=length)
        np.testing.assert_array_equal(tokens[0], expected[f"tokens_{i}"])
        np.testing.assert_array_equal(types[0], expected[f"types_{i}"])
    parameters = initial_parameters(config, seed=0, mesh=ONE_DEVICE)
    theta = CrossEncoderDiscriminator(
        from_parameters(config, parameters), config=config, max_tokens=40, tokenizer_folder=folder
    )
    logits = theta.logits(queries, documents)
    assert np.ptp(logits) > 0.1
    print(f"cross-encoder, logits, largest difference: {np.abs(logits - expected['logits']).max():.3g}")
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
