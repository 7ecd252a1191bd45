"""What a Hugging Face or sentence-transformers folder says about the encoder in it. Nothing of it is run as code."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crops_jax.errors import InputError, NamedFailure

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_TOKENIZER_SETTINGS = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
_DOWNLOADED = ["*.safetensors", "*.json", *TOKENIZER_FILES]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_POOLING: dict[str, Literal["mean", "first", "last"]] = {"mean": "mean", "cls": "first", "lasttoken": "last"}
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# modules.json names classes by paths that moved between versions; the last part stayed.
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}
_REQUIRED_SIZES = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "feed_forward_width",
    "max_position_embeddings": "max_positions",
}
# Families whose tower is crops_jax.models.bert; True: positions start after the padding token's row.
_FAMILIES = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """An encoder's folder, read."""

    towers: tuple[Path, ...]
    """One folder of config.json, weights and tokenizer for both sides, or that of queries and that of documents."""
    sizes: Mapping[str, Any]
    """The fields of EncoderConfig that the folder decides."""
    max_query_tokens: int
    """Where sentence-transformers would cut a query."""
    max_document_tokens: int
    prompts: Mapping[str, str]
    """Prompts by name, without the empty ones."""
    default_prompt: str
    """What sentence-transformers' encode puts before a text when nothing is said."""
    scores_are_cosines: bool
    """False: the folder scores by dot product or distance of vectors that are not of unit length."""

    @property
    def tokenizer(self) -> Path:
        return self.towers[0]


class _Modules(NamedTuple):
    towers: tuple[Path, ...]
    poolings: tuple[Path, ...]
    normalised: bool


def locate(name: str | Path) -> Path:
    """The folder itself, or the local copy of a hub repository (safetensors, tokenizer and JSON files only).

    Raises InputError when there is neither, NamedFailure when the hub cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists() or not _HUB_NAME.fullmatch(str(name)):
        raise InputError(
            f"{name} is no folder; give one with config.json, model.safetensors and a tokenizer, "
            "or the name of a Hugging Face hub repository"
        )
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(str(name), allow_patterns=_DOWNLOADED))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise InputError(
            f"{name} is neither a folder here nor a repository of the Hugging Face hub that can be "
            f"read ({_first_line(error)}); give the path of a folder, or log in to the hub"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise NamedFailure(
            f"{name} is no folder here, and the Hugging Face hub cannot be reached "
            f"({_first_line(error)}); download it elsewhere and give the path of the folder with "
            "config.json, model.safetensors and tokenizer.json in its place"
        ) from error


def describe(path: Path) -> ModelFolder:
    """Reads config.json, modules.json and what they name. Raises InputError, naming the file, on what is not known."""
    modules = _modules(path)
    settings = _json(path / "config_sentence_transformers.json", absent={})
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    sizes = [_sizes(tower) for tower in modules.towers]
    poolings = [_pooling(folder, has_prompts=bool(prompts)) for folder in modules.poolings] or ["mean"]
    if any(other != sizes[0] for other in sizes) or len(set(poolings)) > 1:
        raise InputError(f"{path}: the towers of queries and documents differ in size or pooling; they must agree")
    if any(_tokenizer_bytes(tower) != _tokenizer_bytes(modules.towers[0]) for tower in modules.towers):
        raise InputError(f"{path}: the towers of queries and documents have different tokenizers; they must agree")
    limits = [_max_tokens(tower, longest=_longest(sizes[0])) for tower in modules.towers]
    return ModelFolder(
        towers=modules.towers,
        sizes={**sizes[0], "pooling": poolings[0]},
        max_query_tokens=limits[0],
        max_document_tokens=limits[-1],
        prompts=prompts,
        default_prompt=prompts.get(settings.get("default_prompt_name") or "", ""),
        scores_are_cosines=modules.normalised or (settings.get("similarity_fn_name") or "cosine") == "cosine",
    )


def _modules(path: Path) -> _Modules:
    file = path / "modules.json"
    if not file.is_file():
        if not (path / "config.json").is_file():
            raise InputError(
                f"{path}: neither config.json nor modules.json in it; give a folder that Hugging Face "
                "or sentence-transformers wrote"
            )
        return _Modules((path,), (), normalised=False)
    modules = [(_class_name(module, file), path / module.get("path", "")) for module in _json(file)]
    names = [name for name, _ in modules]
    if names and names[0] == "Router":
        towers, poolings = _routes(modules[0][1])
        modules, names = modules[1:], ["Transformer", *names[1:]]
    else:
        towers, poolings = tuple(p for name, p in modules if name == "Transformer"), ()
    poolings += tuple(p for name, p in modules if name == "Pooling")
    unknown = [name for name in names if name not in _KNOWN_MODULES]
    if unknown:
        raise InputError(
            f"{file}: module {unknown[0]} is not supported; an encoder may be made of Transformer, "
            "Pooling and Normalize"
        )
    if not towers or names[0] != "Transformer" or names.count("Transformer") > 1 or not poolings:
        raise InputError(f"{file}: expected Transformer, Pooling and perhaps Normalize, found {', '.join(names)}")
    return _Modules(towers, poolings, normalised="Normalize" in names)


def _routes(path: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Towers and poolings of sentence-transformers' Router with a route for queries and one for documents."""
    file = path / "router_config.json"
    routes = _json(file)
    towers, poolings = [], []
    structure, types = routes.get("structure", {}), routes.get("types", {})
    if set(structure) != {"query", "document"} or (routes.get("parameters") or {}).get("route_mappings"):
        raise InputError(f"{file}: the routes must be query and document, found {', '.join(structure) or 'none'}")
    for route in ("query", "document"):
        names = [str(types.get(module, module)).rpartition(".")[2] for module in structure[route]]
        if names[:1] != ["Transformer"] or not set(names) <= _KNOWN_MODULES:
            raise InputError(
                f"{file}: route {route} must be Transformer, Pooling and perhaps Normalize, found {', '.join(names)}"
            )
        towers.append(path / structure[route][0])
        poolings += [path / module for module, name in zip(structure[route], names, strict=True) if name == "Pooling"]
    return tuple(towers), tuple(poolings)


def _class_name(module: Mapping[str, Any], file: Path) -> str:
    try:
        return module["type"].rpartition(".")[2]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: a module without a type; the folder is not one of sentence-transformers") from error


def _pooling(folder: Path, *, has_prompts: bool) -> str:
    file = folder / "config.json"
    settings = _json(file)
    modes = settings.get("pooling_mode") or [new for old, new in _OLD_POOLING.items() if settings.get(old)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise InputError(
            f"{file}: pooling {' and '.join(map(str, modes))} is not supported; it may be one of {', '.join(_POOLING)}"
        )
    if has_prompts and not settings.get("include_prompt", True):
        raise InputError(
            f"{file}: include_prompt false is not supported; an encoder whose pooling leaves its prompt "
            "out cannot be used here"
        )
    return _POOLING[modes[0]]


def _sizes(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    found = _json(file)
    family = found.get("model_type")
    if family not in _FAMILIES:
        raise InputError(f"{file}: model_type {family} is not supported; it may be one of {', '.join(_FAMILIES)}")
    missing = [name for name in _REQUIRED_SIZES if not isinstance(found.get(name), int)]
    if missing:
        raise InputError(f"{file}: {missing[0]} must be an integer, found {found.get(missing[0])}")
    expected = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
    for name, value in expected.items():
        if (found.get(name) if found.get(name) is not None else value) != value:
            raise InputError(f"{file}: {name} {found[name]} is not supported; it may be {value}")
    padding = found.get("pad_token_id")
    return {
        **{ours: found[theirs] for theirs, ours in _REQUIRED_SIZES.items()},
        "position_offset": (1 if padding is None else padding) + 1 if _FAMILIES[family] else 0,
        "type_vocabulary_size": found.get("type_vocab_size", 2),
        "layer_norm_epsilon": found.get("layer_norm_eps", 1e-12),
    }


def _longest(sizes: Mapping[str, Any]) -> int:
    return sizes["max_positions"] - sizes["position_offset"]


def _max_tokens(folder: Path, *, longest: int) -> int:
    file = folder / "sentence_bert_config.json"
    settings = _json(file, absent={})
    if settings.get("do_lower_case") and b'"lowercase":true' not in _tokenizer_bytes(folder).replace(b" ", b""):
        raise InputError(
            f"{file}: do_lower_case is not supported where the tokenizer itself keeps capitals; build "
            "the lower-casing into tokenizer.json"
        )
    own = (settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}).get("model_max_length")
    limit = own or settings.get("max_seq_length")
    if limit is None:
        limit = _json(folder / "tokenizer_config.json", absent={}).get("model_max_length") or longest
    return min(int(limit), longest)


def _tokenizer_bytes(folder: Path) -> bytes:
    """tokenizer.json, or the vocabulary file that stands for it in older folders."""
    for name in TOKENIZER_FILES:
        if name not in _TOKENIZER_SETTINGS and (folder / name).is_file():
            return (folder / name).read_bytes()
    raise InputError(f"{folder}: no tokenizer in it; tokenizer.json must lie beside config.json")


def _json(file: Path, *, absent: Any = None) -> Any:
    if absent is not None and not file.is_file():
        return absent
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; the folder is incomplete") from error
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); copy the folder again") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
