"""Reads what a Hugging Face or sentence-transformers folder says about its encoder, and runs no code of the folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crops_jax.artifacts.json_fields import read_list, read_object, typed
from crops_jax.errors import InputError, NamedFailure, one_line
from crops_jax.pretrained.config_fields import REMEDY, optional
from crops_jax.pretrained.config_json import read_sizes
from crops_jax.pretrained.dense_modules import dense_fields, hashed_fields

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
_POOLING_READ = {"pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension"}
# modules.json names classes by paths that changed between versions; only their first and last parts are constant.
_PACKAGE = "sentence_transformers."
_KNOWN_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
_ORDER = re.compile("Transformer Pooling( Dense)*( Normalize)*")
# The fields of sentence_bert_config.json. Those of these values change nothing, and neither does the layout of batches.
_TRANSFORMER_EXPECTED: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
_TRANSFORMER_READ = {"max_seq_length", "do_lower_case", "unpad_inputs"}
# Fields that hold arguments of transformers, with those that change no vector, and the older names of these fields.
_TRANSFORMER_ARGUMENTS = {
    "model_kwargs": {"dtype", "torch_dtype", "attn_implementation", "trust_remote_code"},
    "processor_kwargs": {"model_max_length", "use_fast", "padding_side", "trust_remote_code"},
    "config_kwargs": {"use_cache", "trust_remote_code"},
}
_OLD_ARGUMENTS = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """The description of an encoder that was read from its folder."""

    towers: tuple[Path, ...]
    """The folders of config.json, weights and tokenizer: one for both sides, or those of queries and of documents."""
    sizes: Mapping[str, Any]
    """The fields of EncoderConfig that the folder decides."""
    max_query_tokens: int
    """The number of tokens at which sentence-transformers would cut a query."""
    max_document_tokens: int
    """The number of tokens at which sentence-transformers would cut a document."""
    prompts: Mapping[str, str]
    """The prompts by name; empty prompts are omitted."""
    default_prompt: str
    """The text that encode of sentence-transformers puts before each text by default."""
    scores_are_cosines: bool
    """Whether scores are cosines. False: they are dot products or distances of vectors that are not of unit length."""
    dense: tuple[tuple[Path, ...], ...]
    """The folders of the Dense modules of each tower, in their order."""
    matryoshka_dims: tuple[int, ...]
    """The numbers of leading components that were trained as vectors, as exports of crops_jax list; empty: unknown."""
    truncate_dim: int | None
    """The number of leading components of the vectors that the folder declares; None: all."""

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.towers[0]


class _Modules(NamedTuple):
    towers: tuple[Path, ...]
    poolings: tuple[Path, ...]
    dense: tuple[tuple[Path, ...], ...]
    normalised: bool


def locate(name: str | Path) -> Path:
    """Returns the folder, or the local copy of a hub repository (only safetensors, tokenizer and JSON files).

    Raises InputError if neither exists, and NamedFailure if the hub cannot be reached.
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
            f"read ({one_line(error, limit=300)}); give the path of a folder, or log in to the hub"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise NamedFailure(
            f"{name} is no folder here, and the Hugging Face hub cannot be reached "
            f"({one_line(error, limit=300)}); download it elsewhere and give the path of the folder with "
            "config.json, model.safetensors and tokenizer.json instead"
        ) from error


def describe(path: Path) -> ModelFolder:
    """Reads config.json, modules.json and the files that they name.

    Raises InputError, naming the file, if the folder is broken or its encoder is not supported.
    """
    modules = _modules(path)
    file = path / "config_sentence_transformers.json"
    settings = _json(file) if file.is_file() else {}
    prompts = _prompts(file, settings)
    similarity = optional(file, settings, "similarity_fn_name", str, default="cosine")
    sizes = [_sizes(path, tower, dense) for tower, dense in zip(modules.towers, modules.dense, strict=True)]
    poolings = [_pooling(folder, has_prompts=bool(prompts)) for folder in modules.poolings] or ["mean"]
    if any(other != sizes[0] for other in sizes) or len(set(poolings)) > 1:
        raise InputError(f"{path}: the towers of queries and documents differ in size or pooling; they must agree")
    if any(_tokenizer_bytes(tower) != _tokenizer_bytes(modules.towers[0]) for tower in modules.towers):
        raise InputError(f"{path}: the towers of queries and documents have different tokenizers; they must agree")
    dim = (sizes[0]["width"], *sizes[0]["dense_widths"])[-1]
    limits = [_max_tokens(tower, longest=_longest(sizes[0])) for tower in modules.towers]
    return ModelFolder(
        towers=modules.towers,
        sizes={**sizes[0], "pooling": poolings[0]},
        max_query_tokens=limits[0],
        max_document_tokens=limits[-1],
        prompts=prompts,
        default_prompt=_default_prompt(file, settings, prompts),
        scores_are_cosines=modules.normalised or similarity == "cosine",
        dense=modules.dense,
        matryoshka_dims=_matryoshka_dims(file, settings, width=dim),
        truncate_dim=_truncate_dim(file, settings, width=dim),
    )


def _sizes(path: Path, tower: Path, dense: tuple[Path, ...]) -> dict[str, Any]:
    sizes = read_sizes(tower / "config.json")
    if sizes["family"] == "hashed":
        return sizes | hashed_fields(dense, inputs=sizes["feature_width"], source=path / "modules.json")
    return sizes | dense_fields(dense, inputs=sizes["width"])


def _matryoshka_dims(file: Path, settings: Mapping[str, Any], *, width: int) -> tuple[int, ...]:
    dims = optional(file, settings, "matryoshka_dims", list, default=[])
    checked = tuple(typed(file, "matryoshka_dims", dim, int, remedy=REMEDY) for dim in dims)
    if not all(0 < dim < width for dim in checked):
        raise InputError(f"{file}: matryoshka_dims must lie in [1, {width}), found {dims}; {REMEDY}")
    return checked


def _truncate_dim(file: Path, settings: Mapping[str, Any], *, width: int) -> int | None:
    dim = optional(file, settings, "truncate_dim", int, default=None)
    if dim is not None and not 1 <= dim <= width:
        raise InputError(f"{file}: truncate_dim must lie in [1, {width}], found {dim}; {REMEDY}")
    return dim


def _default_prompt(file: Path, settings: Mapping[str, Any], prompts: Mapping[str, str]) -> str:
    name = optional(file, settings, "default_prompt_name", str, default="")
    if name and name not in optional(file, settings, "prompts", dict, default={}):
        raise InputError(f"{file}: default_prompt_name {name!r} is none of the prompts; add the prompt, or {REMEDY}")
    return prompts.get(name, "")


def _prompts(file: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    prompts = optional(file, settings, "prompts", dict, default={})
    return {name: text for name in prompts if (text := optional(file, prompts, name, str, default=""))}


def _modules(path: Path) -> _Modules:
    file = path / "modules.json"
    if not file.is_file():
        if not (path / "config.json").is_file():
            raise InputError(
                f"{path}: the folder has neither config.json nor modules.json; give a folder that Hugging Face "
                "or sentence-transformers wrote"
            )
        return _Modules((path,), (), ((),), normalised=False)
    listed = [typed(file, "a module", module, dict, remedy=REMEDY) for module in read_list(file, remedy=REMEDY)]
    modules = [
        (_class_name(file, module), _inside(file, path, optional(file, module, "path", str, default="")))
        for module in listed
    ]
    is_router = bool(modules) and modules[0][0] == "Router"
    chains = [route + modules[1:] for route in _routes(modules[0][1])] if is_router else [modules]
    for parts in chains:
        _check_order(file, [name for name, _ in parts])
    towers, poolings, dense = (
        tuple(tuple(part for name, part in parts if name == kind) for parts in chains)
        for kind in ("Transformer", "Pooling", "Dense")
    )
    normalised = all(parts[-1][0] == "Normalize" for parts in chains)
    return _Modules(tuple(chain(*towers)), tuple(chain(*poolings)), dense, normalised=normalised)


def _check_order(file: Path, names: list[str]) -> None:
    if unknown := [name for name in names if name not in _KNOWN_MODULES]:
        raise InputError(
            f"{file}: module {unknown[0]} is not supported; the modules must be Transformer, Pooling, optionally Dense "
            "and Normalize of sentence-transformers"
        )
    if not _ORDER.fullmatch(" ".join(names)):
        raise InputError(
            f"{file}: expected Transformer, Pooling, optionally Dense and at last optionally Normalize, found "
            f"{', '.join(names)}"
        )


def _routes(path: Path) -> list[list[tuple[str, Path]]]:
    """Returns the modules of the routes of a Router for queries and for documents."""
    file = path / "router_config.json"
    content = _json(file)
    structure, types, parameters = (
        optional(file, content, name, dict, default={}) for name in ("structure", "types", "parameters")
    )
    if set(structure) != {"query", "document"} or parameters.get("route_mappings"):
        raise InputError(f"{file}: the routes must be query and document, found {', '.join(structure) or 'none'}")
    routes = []
    for route in ("query", "document"):
        parts = [
            typed(file, f"structure.{route}", part, str, remedy=REMEDY)
            for part in typed(file, f"structure.{route}", structure[route], list, remedy=REMEDY)
        ]
        routes.append([(_module_name(str(types.get(part, part))), _inside(file, path, part)) for part in parts])
    return routes


def _class_name(file: Path, module: Mapping[str, Any]) -> str:
    return _module_name(typed(file, "a module's type", module.get("type"), str, remedy=REMEDY))


def _module_name(path: str) -> str:
    """Returns the name of a class of sentence-transformers; of another class, whose code is not run, the whole path."""
    return path.rpartition(".")[2] if path.startswith(_PACKAGE) else path


def _inside(file: Path, folder: Path, name: str) -> Path:
    """Returns the path of a part of a model's folder. Raises InputError if the name leads out of the folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise InputError(f"{file}: path {name!r} leads out of the folder; {REMEDY}")
    return folder / name


def _pooling(folder: Path, *, has_prompts: bool) -> str:
    file = folder / "config.json"
    settings = _json(file)
    unknown = [name for name in settings if name.startswith("pooling_mode_") and name not in _OLD_POOLING]
    if chosen := [name for name in unknown if settings[name]]:
        raise InputError(f"{file}: {chosen[0]} is not supported; pooling must be one of {', '.join(_POOLING)}")
    modes = settings.get("pooling_mode") or [new for old, new in _OLD_POOLING.items() if settings.get(old)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else typed(file, "pooling_mode", modes, str, list, remedy=REMEDY)
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _POOLING:
        raise InputError(
            f"{file}: pooling {' and '.join(map(str, modes))} is not supported; it must be one of {', '.join(_POOLING)}"
        )
    if unread := [name for name in settings if name not in _POOLING_READ and not name.startswith("pooling_mode_")]:
        raise InputError(f"{file}: field {unread[0]} of a Pooling module is not known; remove it if it has no effect")
    if has_prompts and not settings.get("include_prompt", True):
        raise InputError(
            f"{file}: include_prompt false is not supported; an encoder whose pooling omits the prompt cannot be used"
        )
    return _POOLING[modes[0]]


def _longest(sizes: Mapping[str, Any]) -> int:
    return sizes["max_positions"] - sizes["position_offset"]


def _max_tokens(folder: Path, *, longest: int) -> int:
    file = folder / "sentence_bert_config.json"
    settings = _json(file) if file.is_file() else {}
    _check_transformer(file, settings)
    if settings.get("do_lower_case") and b'"lowercase":true' not in _tokenizer_bytes(folder).replace(b" ", b""):
        raise InputError(
            f"{file}: do_lower_case is not supported if the tokenizer keeps capitals; put "
            "the lower-casing into tokenizer.json"
        )
    arguments = [optional(file, settings, name, dict, default={}) for name in ("processor_kwargs", "tokenizer_args")]
    limit = (arguments[0] or arguments[1]).get("model_max_length") or settings.get("max_seq_length")
    if limit is None:
        file = folder / "tokenizer_config.json"
        limit = (_json(file) if file.is_file() else {}).get("model_max_length") or longest
    # transformers writes 1e30 if there is no limit.
    limit = typed(file, "the maximum number of tokens", limit, int, float, remedy=REMEDY)
    if not limit >= 1:
        raise InputError(f"{file}: the maximum number of tokens must be at least 1, found {limit}; {REMEDY}")
    return int(min(limit, longest))


def _check_transformer(file: Path, settings: Mapping[str, Any]) -> None:
    """Raises InputError for a field that changes the vectors, or that may, since it is not known."""
    for name, value in settings.items():
        if harmless := _TRANSFORMER_ARGUMENTS.get(_OLD_ARGUMENTS.get(name, name)):
            given = optional(file, settings, name, dict, default={})
            if unread := [key for key in given if key not in harmless and given[key] is not None]:
                raise InputError(
                    f"{file}: {name}.{unread[0]} is not supported; write it into config.json or tokenizer_config.json"
                )
        elif value and name not in _TRANSFORMER_READ and value != _TRANSFORMER_EXPECTED.get(name):
            raise InputError(
                f"{file}: {name} {value} is not supported, since it may change the vectors; remove it if it does not"
            )


def _tokenizer_bytes(folder: Path) -> bytes:
    """Returns the bytes of tokenizer.json, or of the vocabulary file that older folders have instead."""
    for name in TOKENIZER_FILES:
        if name not in _TOKENIZER_SETTINGS and (folder / name).is_file():
            return (folder / name).read_bytes()
    raise InputError(f"{folder}: it has no tokenizer; tokenizer.json must be beside config.json")


def _json(file: Path) -> dict[str, Any]:
    return read_object(file, remedy=REMEDY)
