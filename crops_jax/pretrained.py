"""Hugging Face folders in, sentence-transformers folders out.

    config = resolve_config(config)              sizes and pooling of config.encoder.weights
    encoder = load_encoder("folder or hub name")
    export(encoder, folder)                      a folder that sentence-transformers loads as it is

Weights are read as safetensors only: other formats can run code when opened.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from crops_jax import __version__, tokenizer
from crops_jax.config import Config, EncoderConfig
from crops_jax.encoder import Encoder
from crops_jax.errors import InputError
from crops_jax.hugging_face_config import config_json
from crops_jax.model_folder import ModelFolder, describe, locate
from crops_jax.models.dual_encoder import DualEncoder, from_parameters
from crops_jax.models.hugging_face_names import from_hugging_face, to_hugging_face

_CLASS = "sentence_transformers.models."  # the name that every version since 2 understands
_EXPORTED_POOLING = {
    "mean": "pooling_mode_mean_tokens",
    "first": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}


def resolve_config(config: Config) -> Config:
    """`config` with the sizes and the pooling of config.encoder.weights; as it is when weights == "".

    Raises InputError when the folder cannot be used, or contradicts the rest of the configuration.
    """
    if not config.encoder.weights:
        return config
    return _resolve(config, describe(locate(config.encoder.weights)))


def create_from_weights(config: Config) -> DualEncoder:
    """A DualEncoder with the weights of config.encoder.weights; both towers start from them. Raises InputError."""
    folder = describe(locate(config.encoder.weights))
    return _create(_resolve(config, folder), folder)


def load_encoder(folder_or_hub_name: str | Path, *, max_tokens: int | None = None) -> Encoder:
    """The encoder of a Hugging Face or sentence-transformers folder, or of a hub repository, in float32.

    Pooling and prompts are the folder's; a folder without modules.json is pooled by the mean. Vectors have unit
    length, whether the folder has a Normalize module or not, so that dot products are its cosines.

    Args:
      max_tokens: where texts are cut; None: where sentence-transformers would.

    Raises InputError when the folder is not one of a supported encoder, and NamedFailure when the hub cannot be
    reached.
    """
    folder = describe(locate(folder_or_hub_name))
    if not folder.scores_are_cosines:
        raise InputError(
            f"{folder_or_hub_name}: its scores are not cosines (similarity_fn_name) and it has no "
            "Normalize module, so unit vectors would rank otherwise; it can be trained from "
            "(--encoder.weights), not used as it is"
        )
    longest = folder.sizes["max_positions"] - folder.sizes["position_offset"]
    if max_tokens is not None and not 3 <= max_tokens <= longest:
        raise InputError(f"max_tokens must lie in [3, {longest}] for {folder_or_hub_name}, found {max_tokens}")
    limits = {
        "max_query_tokens": max_tokens or folder.max_query_tokens,
        "max_document_tokens": max_tokens or folder.max_document_tokens,
    }
    config = Config(
        encoder=_encoder_config(
            EncoderConfig(), folder, weights=str(folder_or_hub_name), shared_towers=len(folder.towers) == 1, **limits
        )
    )
    return Encoder(
        _create(config, folder),
        config=config,
        tokenizer_folder=folder.tokenizer,
        prompts=folder.prompts,
        default_prompt=folder.default_prompt,
    )


def export(encoder: Encoder, folder: str | Path) -> dict[str, Any]:
    """Writes an encoder as a folder that sentence-transformers and `load_encoder` load as it is.

    Shared towers become one Transformer, Pooling and Normalize. sentence-transformers has one token limit for such a
    folder: that of documents, so a query longer than max_query_tokens is cut later there. Two towers become a Router
    (sentence-transformers >= 5) with the routes query and document, each with its own limit: `encode_query` and
    `encode_document` take them.

    Args:
      folder: exists and is empty, or does not exist.

    Returns what was written: architecture, dim, max_seq_length by route, pooling.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, parameters = encoder.config.encoder, encoder.parameters
    if config.shared_towers:
        _write_transformer(folder, encoder, parameters["tower"], config.max_document_tokens)
        _write_pooling(folder / "1_Pooling", config)
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        limits = {"query": config.max_document_tokens, "document": config.max_document_tokens}
    else:
        limits = {"query": config.max_query_tokens, "document": config.max_document_tokens}
        for route, limit in limits.items():
            _write_transformer(folder / f"{route}_0_Transformer", encoder, parameters[f"{route}_tower"], limit)
            _write_pooling(folder / f"{route}_1_Pooling", config)
        _write_routes(folder)
        modules = [("", "Router"), ("1_Normalize", "Normalize")]
    (folder / modules[-1][0]).mkdir(exist_ok=True)
    _write_json(folder / modules[-1][0] / "config.json", {})
    _write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": _CLASS + kind} for i, (path, kind) in enumerate(modules)],
    )
    prompts = {"query": "", "document": "", **encoder.prompts}
    default = next((name for name, text in prompts.items() if text and text == encoder.default_prompt), None)
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"crops_jax": __version__},
            "model_type": "SentenceTransformer",
            "prompts": prompts,
            "default_prompt_name": default,
            "similarity_fn_name": "cosine",
        },
    )
    (folder / "README.md").write_text(_readme(encoder, limits), encoding="utf-8")
    return {
        "architecture": "Transformer" if config.shared_towers else "Router",
        "dim": encoder.dim,
        "max_seq_length": limits,
        "pooling": config.pooling,
    }


def _resolve(config: Config, folder: ModelFolder) -> Config:
    if len(folder.towers) > 1 and config.encoder.shared_towers:
        raise InputError(
            f"{config.encoder.weights} has a tower for queries and one for documents, and "
            "encoder.shared_towers is set; unset it"
        )
    return dataclasses.replace(config, encoder=_encoder_config(config.encoder, folder))


def _encoder_config(encoder: EncoderConfig, folder: ModelFolder, **fields: Any) -> EncoderConfig:
    try:
        return dataclasses.replace(encoder, **folder.sizes, **fields)
    except ValueError as error:
        raise InputError(f"{folder.towers[0]}: {error}") from error


def _create(config: Config, folder: ModelFolder) -> DualEncoder:
    towers = [from_hugging_face(open_tensors(tower), config.encoder, source=str(tower)) for tower in folder.towers]
    names = ["tower"] if config.encoder.shared_towers else ["query_tower", "document_tower"]
    parameters = {name: towers[min(i, len(towers) - 1)] for i, name in enumerate(names)}
    log_inverse_temperature = np.float32(-np.log(config.loss.initial_temperature))
    try:
        return from_parameters(config, {**parameters, "log_inverse_temperature": log_inverse_temperature})
    except ValueError as error:
        raise InputError(
            f"{folder.towers[0]}: {error}; the weights do not belong to the config.json beside them"
        ) from error


def open_tensors(folder: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a folder's safetensors files as float32, by name, each read when it is asked for.

    Raises InputError where there are none or a file cannot be read.
    """
    return _Tensors(folder)


class _Tensors(Mapping[str, np.ndarray]):
    """The tensors of a folder's safetensors files, by name, each read when it is asked for."""

    def __init__(self, folder: Path):
        self._files = {name: file for file in _weight_files(folder) for name in _tensor_names(file)}

    def __getitem__(self, name: str) -> np.ndarray:
        # NumPy knows no bfloat16; this framework's arrays do.
        with safe_open(self._files[name], framework="flax") as opened:
            return np.asarray(opened.get_tensor(name).astype("float32"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InputError(f"{index}: not an index of safetensors files ({error}); copy the folder again") from error
        files = [folder / Path(name).name for name in names]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(f"{missing[0]}: no such file, though {index.name} names it; copy the folder again")
        return files
    others = sorted(file.name for file in folder.glob("*.bin")) + sorted(file.name for file in folder.glob("*.h5"))
    found = f"only {others[0]}, a format that is not read because it can hold code" if others else "none"
    raise InputError(
        f"{folder}: weights must be safetensors (model.safetensors), found {found}; save the model again as safetensors"
    )


def _tensor_names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="flax") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file, or a torn one ({error}); copy the folder again") from error


def _write_transformer(folder: Path, encoder: Encoder, tower: Mapping[str, Any], max_tokens: int) -> None:
    folder.mkdir(exist_ok=True)
    _write_json(folder / "config.json", config_json(encoder.config.encoder))
    tensors = to_hugging_face(tower, encoder.config.encoder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.copy(encoder.tokenizer_folder, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    _check_positions(encoder.config.encoder, folder, settings)
    _write_json(folder / "tokenizer_config.json", {**settings, "model_max_length": max_tokens})
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    # transformers takes some tokenizers to be those of the model type in config.json beside them.
    if tokenizer.fingerprint(folder) != encoder.tokenizer.fingerprint:
        raise InputError(
            f"{encoder.tokenizer_folder}: transformers reads another tokenizer out of a folder of a "
            f"{encoder.config.encoder.family} encoder than this one; such an encoder cannot be exported. Train one "
            "with the family's own tokenizer"
        )


def _check_positions(config: EncoderConfig, folder: Path, settings: Mapping[str, Any]) -> None:
    # RoBERTa counts positions over the tokens that are not its padding token, and starts after that token's row.
    if not config.position_offset:
        return
    padding = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(str(settings.get("pad_token")))
    if padding != config.position_offset - 1:
        raise InputError(
            f"encoder.position_offset {config.position_offset} with padding token {padding} is no family of Hugging "
            "Face's: the offset must be that token's id + 1, or 0; such an encoder cannot be exported"
        )


def _write_pooling(folder: Path, config: EncoderConfig) -> None:
    folder.mkdir(exist_ok=True)
    modes = {name: pooling == config.pooling for pooling, name in _EXPORTED_POOLING.items()}
    _write_json(folder / "config.json", {"word_embedding_dimension": config.width, **modes, "include_prompt": True})


def _write_routes(folder: Path) -> None:
    structure = {route: [f"{route}_0_Transformer", f"{route}_1_Pooling"] for route in ("query", "document")}
    types = {name: _CLASS + name.rpartition("_")[2] for names in structure.values() for name in names}
    parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
    _write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})


def _readme(encoder: Encoder, limits: Mapping[str, int]) -> str:
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

A query is expected in normalised form: Unicode NFKC, lower case, white space folded to one blank and trimmed. A
document is its title, keywords, cover text and text, joined by blanks.
"""


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
