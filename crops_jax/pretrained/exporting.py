"""Exports an encoder as a folder that sentence-transformers loads unchanged.

A tower becomes the modules Transformer, Pooling, its Dense modules, and Normalize. A hashed tower that has only token
features becomes a Transformer without layers, whose token states are the rows of the table, with Dense modules for its
network. (The modules of sentence-transformers for tables cannot be used: StaticEmbedding omits special
tokens, and WordEmbeddings drops the last token of a long text and refuses encode_query.)
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from tokenizers import Tokenizer

from crops_jax import __version__
from crops_jax.config import EncoderConfig
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError
from crops_jax.pretrained.config_json import config_json
from crops_jax.pretrained.dense_modules import dense_of_tower, write_dense
from crops_jax.pretrained.tensor_names import to_hugging_face
from crops_jax.text import tokenizer

_CLASS = "sentence_transformers.models."  # every version since 2 understands this name
_EXPORTED_POOLING = {
    "mean": "pooling_mode_mean_tokens",
    "first": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}


def export(encoder: Encoder, folder: str | Path) -> dict[str, Any]:
    """Writes an encoder as a folder that sentence-transformers and `load_encoder` load unchanged.

    Shared towers become one Transformer, Pooling, Dense modules and Normalize. sentence-transformers has one limit of
    tokens for such a folder, that of documents, so it cuts queries at max_document_tokens, not at max_query_tokens. Two
    towers become a Router (sentence-transformers >= 5) with the routes query and document, each with its own limit:
    `encode_query` and `encode_document` use them.

    Args:
      encoder: the encoder to write.
      folder: an empty folder, or a path that does not exist.

    Returns a summary of the folder: architecture, dim, max_seq_length by route, pooling.

    Raises InputError if such an encoder cannot be written (`export_obstacle`).
    """
    config, parameters = encoder.config.encoder, encoder.parameters
    if obstacle := export_obstacle(config, encoder.tokenizer_folder):
        raise InputError(obstacle)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dense = config.layers + 1 if config.family == "hashed" else len(config.dense_widths)
    kinds = ["Transformer", "Pooling", *["Dense"] * dense]
    if config.shared_towers:
        limits = {"query": config.max_document_tokens, "document": config.max_document_tokens}
        paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds[1:], start=1))]
        _write_tower([folder / path for path in paths], encoder, parameters["tower"], config.max_document_tokens)
    else:
        limits = {"query": config.max_query_tokens, "document": config.max_document_tokens}
        routes = {route: [f"{route}_{i}_{kind}" for i, kind in enumerate(kinds)] for route in limits}
        for route, names in routes.items():
            _write_tower([folder / name for name in names], encoder, parameters[f"{route}_tower"], limits[route])
        _write_router(folder, routes)
        paths, kinds = [""], ["Router"]
    normalize = f"{len(paths)}_Normalize"
    (folder / normalize).mkdir(exist_ok=True)
    _write_json(folder / normalize / "config.json", {})
    modules = enumerate(zip([*paths, normalize], [*kinds, "Normalize"], strict=True))
    _write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": _CLASS + kind} for i, (path, kind) in modules],
    )
    _write_settings(folder, encoder)
    (folder / "README.md").write_text(_readme(encoder, limits), encoding="utf-8")
    return {
        "architecture": "Transformer" if config.shared_towers else "Router",
        "dim": encoder.dim,
        "max_seq_length": limits,
        "pooling": config.pooling,
    }


def export_obstacle(config: EncoderConfig, tokenizer_folder: Path) -> str | None:
    """Returns a sentence that says why encoders of this configuration cannot be written for sentence-transformers.

    Returns None if they can be written.
    """
    if config.query_codes:
        return (
            f"encoder.query_codes {config.query_codes}: sentence-transformers has no module for the score of a "
            "Poly-encoder, so such an encoder cannot be exported; with --encoder.query-codes 0 it can"
        )
    if config.family == "hashed":
        if config.hashed_features != ("unigrams",):
            return (
                f"encoder.hashed_features {' '.join(config.hashed_features)}: sentence-transformers has no module that "
                "computes them, so such an encoder cannot be exported; the only hashed encoders that can are "
                "those with --encoder.hashed-features unigrams"
            )
        if config.hash_buckets < config.vocabulary_size:
            return (
                f"encoder.hash_buckets {config.hash_buckets} is less than encoder.vocabulary_size "
                f"{config.vocabulary_size}, and sentence-transformers has no module that hashes tokens, so such an "
                "encoder cannot be exported; with as many buckets as tokens it can"
            )
    with tempfile.TemporaryDirectory() as temporary:
        return _tokenizer_obstacle(config, tokenizer_folder, Path(temporary))


def _tokenizer_obstacle(config: EncoderConfig, tokenizer_folder: Path, temporary: Path) -> str | None:
    _write_json(temporary / "config.json", config_json(config))
    tokenizer.copy(tokenizer_folder, temporary)
    # RoBERTa counts only the positions of tokens that are not padding, and starts after the row of the padding token.
    if config.position_offset:
        settings = json.loads((temporary / "tokenizer_config.json").read_text(encoding="utf-8"))
        padding = Tokenizer.from_file(str(temporary / "tokenizer.json")).token_to_id(str(settings.get("pad_token")))
        if padding != config.position_offset - 1:
            return (
                f"encoder.position_offset {config.position_offset} with padding token {padding} is no family of "
                "Hugging Face's: the offset must be that token's id + 1, or 0; such an encoder cannot be exported"
            )
    # For some tokenizers transformers chooses the class by the model type in the config.json beside them.
    if tokenizer.fingerprint(temporary) != tokenizer.fingerprint(tokenizer_folder):
        return (
            f"{tokenizer_folder}: transformers reads another tokenizer out of a folder of a {config.family} encoder "
            "than this one; such an encoder cannot be exported. Train one with the family's own tokenizer"
        )
    return None


def _write_tower(folders: Sequence[Path], encoder: Encoder, tower: Mapping[str, Any], max_tokens: int) -> None:
    """Writes a tower to the folders of its modules: Transformer, Pooling and each Dense module."""
    transformer, pooling, *dense = folders
    transformer.mkdir(exist_ok=True)
    config = encoder.config.encoder
    _write_json(transformer / "config.json", config_json(config))
    save_file(to_hugging_face(tower, config), transformer / "model.safetensors", metadata={"format": "pt"})
    tokenizer.copy(encoder.tokenizer_folder, transformer)
    settings = json.loads((transformer / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write_json(transformer / "tokenizer_config.json", {**settings, "model_max_length": max_tokens})
    _write_json(transformer / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    pooling.mkdir(exist_ok=True)
    modes = {name: kind == config.pooling for kind, name in _EXPORTED_POOLING.items()}
    width = config.feature_width if config.family == "hashed" else config.width
    _write_json(pooling / "config.json", {"word_embedding_dimension": width, **modes, "include_prompt": True})
    for module, (layer, activation) in zip(dense, dense_of_tower(tower, config), strict=True):
        write_dense(module, layer, activation=activation)


def _write_router(folder: Path, routes: Mapping[str, list[str]]) -> None:
    types = {name: _CLASS + name.rpartition("_")[2] for names in routes.values() for name in names}
    parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
    _write_json(folder / "router_config.json", {"types": types, "structure": routes, "parameters": parameters})


def _write_settings(folder: Path, encoder: Encoder) -> None:
    # sentence-transformers adds an empty prompt "document" to a folder without one, and takes it for documents.
    sides = {"query": encoder.prompt("query"), "document": encoder.prompt("document")}
    prompts = {**encoder.prompts, **sides}
    default = next((name for name, text in prompts.items() if text and text == encoder.default_prompt), None)
    settings = {
        "__version__": {"crops_jax": __version__},
        "model_type": "SentenceTransformer",
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": "cosine",
    }
    if encoder.default_dim is not None:
        settings["truncate_dim"] = encoder.default_dim
    # The setting truncate_dim would shorten every vector, and no setting lists the dimensions that users can choose.
    if dims := _shorter_dims(encoder):
        settings["matryoshka_dims"] = dims
    _write_json(folder / "config_sentence_transformers.json", settings)


def _shorter_dims(encoder: Encoder) -> list[int]:
    return [dim for dim in encoder.trained_dims or () if dim < encoder.config.encoder.dim]


def _readme(encoder: Encoder, limits: Mapping[str, int]) -> str:
    shorter = ""
    if dims := _shorter_dims(encoder):
        shorter = f"""
Trained to be shortened (Matryoshka representations): the first {", ".join(map(str, dims))} components serve as vectors
too, `model.encode_query([...], truncate_dim={dims[-1]}, normalize_embeddings=True)`.
"""
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# A retriever trained with crops_jax

    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer("this folder")
    queries = model.encode_query([...])
    documents = model.encode_document([...])

{encoder.dim} dimensions, unit length, scored by cosine; queries are cut at {limits["query"]} tokens, documents at
{limits["document"]}. In training queries had at most {encoder.config.encoder.max_query_tokens} tokens.
{shorter}
A query is expected in normalised form: Unicode NFKC, lower case, no format characters (category Cf), white space
folded to one blank and trimmed. A document is its title, keywords, cover text and text, joined by blanks.
"""


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
