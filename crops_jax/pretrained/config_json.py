"""Converts the config.json of a tower, as Hugging Face writes it, to the fields of EncoderConfig and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.config import EncoderConfig
from crops_jax.errors import InputError

_REMEDY = "copy the folder again"
_SIZES = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "feed_forward_width",
    "max_position_embeddings": "max_positions",
}
# The model types whose tower is crops_jax.models.bert. True: positions start after the row of the padding token.
_BERT_TYPES = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}
# The padding token of MPNet is always 1, and its positions start after that row.
_MPNET_TYPE, _MPNET_OFFSET = "mpnet", 2
_MODERNBERT_TYPE = "modernbert"
_DECODER_TYPES = ("qwen2", "qwen3", "mistral")
_BERT_EXPECTED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_causal": False,
    "is_encoder_decoder": False,
}
_DECODER_EXPECTED = {"hidden_act": "silu", "use_sliding_window": False, "is_causal": True, "is_encoder_decoder": False}
# The sliding windows of Qwen are off with use_sliding_window, which must be false; layer_types says the same of each
# layer. A token of Mistral sees the last sliding_window tokens, so that no text may be longer.
_DECODER_IGNORED = {"max_window_layers", "bos_token_id", "pad_token_id"}
_DECODER_READ = {
    "sliding_window",
    *("num_key_value_heads", "head_dim", "rope_theta", "rope_parameters", "rope_scaling", "rms_norm_eps"),
    *("attention_bias", "layer_types"),
}
_MODERNBERT_EXPECTED = {
    "hidden_activation": "gelu",
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "is_decoder": False,
    "is_causal": False,
    "is_encoder_decoder": False,
}
_MODERNBERT_READ = {
    *("norm_eps", "layer_types", "global_attn_every_n_layers", "local_attention"),
    *("rope_parameters", "global_rope_theta", "local_rope_theta"),
}
# The first versions of ModernBERT wrote fields of BERT that it does not read.
_MODERNBERT_IGNORED = {
    *("initializer_cutoff_factor", "embedding_dropout", "mlp_dropout", "decoder_bias", "classifier_pooling"),
    *("classifier_dropout", "classifier_bias", "classifier_activation", "deterministic_flash_attn"),
    *("sparse_prediction", "sparse_pred_ignore_index", "reference_compile", "repad_logits_with_grad"),
    *("position_embedding_type", "layer_norm_eps", "pad_token_id", "bos_token_id"),
}
_BERT_READ = {"pad_token_id", "type_vocab_size", "layer_norm_eps"}
_MPNET_READ = {"relative_attention_num_buckets", "layer_norm_eps"}
_MPNET_IGNORED = {"hidden_dropout_prob", "attention_probs_dropout_prob", "bos_token_id", "pad_token_id"}
# BertModel does not read embedding_size. Old versions of BERT wrote the fields of the pooler, which vectors do not use.
_BERT_IGNORED = {
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "bos_token_id", "directionality"),
    *("embedding_size", "vocab_size_or_config_json_file"),
    *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
}
# Fields that do not change the vectors: where the model comes from, training, other heads, the form of outputs, and the
# generation of text.
_IGNORED = {
    *("architectures", "model_type", "transformers_version", "_name_or_path", "_commit_hash", "finetuning_task"),
    *("dtype", "torch_dtype", "torchscript", "use_bfloat16", "initializer_range", "attention_dropout"),
    *("gradient_checkpointing", "use_cache", "return_dict", "output_hidden_states", "output_attentions", "output_past"),
    *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "chunk_size_feed_forward"),
    *("id2label", "label2id", "num_labels", "problem_type", "tie_word_embeddings", "task_specific_params"),
    *("eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "decoder_start_token_id", "tokenizer_class"),
    *("prefix", "model_max_length", "sentence_transformers", "unsloth_fixed", "unsloth_version", "tf_legacy_loss"),
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "suppress_tokens"),
    *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
    *("exponential_decay_length_penalty", "begin_suppress_tokens", "cross_attention_hidden_size"),
    "tie_encoder_decoder",
}
_REFUSED = {
    "auto_map": "it names code of the folder, which is not run",
    "quantization_config": "quantised weights are not read; take the folder of the model before quantisation",
    "pruned_heads": "removed heads are not supported",
}
_ROTARY_FIELDS = {"rope_type", "type", "rope_theta"}
_DECODER_BIAS = {"qwen2": True, "qwen3": False, "mistral": False}
_DECODER_ROTARY_BASE = 10_000.0
# OPT is the only model of transformers that, without layers, is only its token table (and positions, which are zeros),
# without a norm and a projection. Exported hashed towers have this type. OPT with layers is not read.
_TABLE_TYPE = "opt"
_TABLE_EXPECTED = {"num_hidden_layers": 0, "do_layer_norm_before": False}


_SUPPORTED = (*_BERT_TYPES, _MPNET_TYPE, _MODERNBERT_TYPE, *_DECODER_TYPES)


def read_sizes(file: Path) -> dict[str, Any]:
    """Returns the fields of EncoderConfig that a config.json decides.

    Raises InputError, naming the file and the field, if the file is broken or its model is not supported.
    """
    content = read_object(file, remedy=_REMEDY)
    kind = _field(file, content, "model_type", str, default="")
    if kind == _TABLE_TYPE and all(content.get(name) == value for name, value in _TABLE_EXPECTED.items()):
        return _table_fields(file, content)
    if kind not in _SUPPORTED:
        known = ", ".join(_SUPPORTED)
        raise InputError(f"{file}: model_type {kind} is not supported; it must be one of {known}")
    for name, why in _REFUSED.items():
        if content.get(name):
            raise InputError(f"{file}: {name} is not supported: {why}")
    for name, value in _expected(kind).items():
        if (content.get(name) if content.get(name) is not None else value) != value:
            raise InputError(f"{file}: {name} {content[name]} is not supported; it must be {value}")
    _check_known(file, content, kind)
    sizes = {field: _size(file, name, content.get(name)) for name, field in _SIZES.items()}
    if kind == _MPNET_TYPE:
        return sizes | _mpnet_fields(file, content)
    if kind == _MODERNBERT_TYPE:
        return sizes | _modernbert_fields(file, content, layers=sizes["layers"])
    if kind in _BERT_TYPES:
        return sizes | _bert_fields(file, content, kind)
    return sizes | _decoder_fields(file, content, kind, longest=sizes["max_positions"])


def known_fields(kind: str) -> set[str]:
    """Returns the fields of the config.json of a model type that are read, checked, refused, or without effect."""
    if kind in _DECODER_TYPES:
        own = (_DECODER_READ, _DECODER_IGNORED)
    else:
        own = {
            _MPNET_TYPE: (_MPNET_READ, _MPNET_IGNORED),
            _MODERNBERT_TYPE: (_MODERNBERT_READ, _MODERNBERT_IGNORED),
        }.get(kind, (_BERT_READ, _BERT_IGNORED))
    own = (_expected(kind), *own)
    return {*_SIZES, *_IGNORED, *_REFUSED, *(name for names in own for name in names)}


def _expected(kind: str) -> Mapping[str, Any]:
    """Returns the fields of a model type that must have one value."""
    if kind == _MODERNBERT_TYPE:
        return _MODERNBERT_EXPECTED
    return _DECODER_EXPECTED if kind in _DECODER_TYPES else _BERT_EXPECTED


def _check_known(file: Path, content: Mapping[str, Any], kind: str) -> None:
    """Raises InputError for a field that is not known and not null, since it may change what the model computes."""
    known = known_fields(kind)
    if unknown := [name for name, value in content.items() if value is not None and name not in known]:
        raise InputError(
            f"{file}: field {unknown[0]} of a {kind} is not known, so it may change the vectors; remove it if it does "
            "not, or take another model"
        )


def config_json(config: EncoderConfig) -> dict[str, Any]:
    """Returns the config.json with which transformers reads a tower of this configuration; its weights are float32."""
    if config.family == "hashed":
        return _table_json(config)
    sizes = {name: getattr(config, field) for name, field in _SIZES.items()}
    common = {"initializer_range": 0.02, "dtype": "float32"}
    if config.is_decoder:
        return {**sizes, **common, **_decoder_json(config)}
    if config.family == "modernbert":
        return {**sizes, **common, **_modernbert_json(config)}
    common |= {
        "layer_norm_eps": config.layer_norm_epsilon,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }
    if config.family == "mpnet":
        buckets = {"relative_attention_num_buckets": config.relative_buckets}
        return {**sizes, **common, **buckets, "architectures": ["MPNetModel"], "model_type": _MPNET_TYPE}
    offset = config.position_offset
    return {
        **sizes,
        **common,
        "architectures": ["XLMRobertaModel" if offset else "BertModel"],
        "model_type": "xlm-roberta" if offset else "bert",
        "pad_token_id": offset - 1 if offset else 0,
        "type_vocab_size": config.type_vocabulary_size,
        "position_embedding_type": "absolute",
    }


def _bert_fields(file: Path, content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    padding = _field(file, content, "pad_token_id", int, default=1) if _BERT_TYPES[kind] else -1
    return {
        "family": "bert",
        "position_offset": _size(file, "pad_token_id", padding, minimum=-1) + 1,
        "type_vocabulary_size": _size(file, "type_vocab_size", content.get("type_vocab_size", 2)),
        "layer_norm_epsilon": float(_field(file, content, "layer_norm_eps", int, float, default=1e-12)),
    }


def _mpnet_fields(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    buckets = _size(file, "relative_attention_num_buckets", content.get("relative_attention_num_buckets", 32))
    return {
        "family": "mpnet",
        "position_offset": _MPNET_OFFSET,
        "relative_buckets": buckets,
        "layer_norm_epsilon": float(_field(file, content, "layer_norm_eps", int, float, default=1e-12)),
    }


def _modernbert_fields(file: Path, content: Mapping[str, Any], *, layers: int) -> dict[str, Any]:
    every = _size(file, "global_attn_every_n_layers", content.get("global_attn_every_n_layers", 3))
    kinds = _field(file, content, "layer_types", list, default=None)
    if kinds is not None:
        others = [i for i, kind in enumerate(kinds[1:], start=1) if kind == "full_attention"]
        every = others[0] if others else max(len(kinds), 1)
        if kinds != [_layer_type(i, every) for i in range(layers)]:
            raise InputError(
                f"{file}: layer_types {', '.join(map(str, kinds))} is not supported; one of every n layers, from the "
                "first on, must be full_attention, and the others sliding_attention"
            )
    rotary = _field(file, content, "rope_parameters", dict, default={})
    bases = {
        kind: _rotary_base(file, _field(file, rotary, f"{kind}_attention", dict, default={}), content, old, default)
        for kind, old, default in (("full", "global_rope_theta", 160_000.0), ("sliding", "local_rope_theta", 10_000.0))
    }
    return {
        "family": "modernbert",
        "position_offset": 0,
        "rotary_base": bases["full"],
        "local_rotary_base": bases["sliding"],
        "local_window": _size(file, "local_attention", content.get("local_attention", 128), minimum=2) // 2,
        "global_every": every,
        "layer_norm_epsilon": float(_field(file, content, "norm_eps", int, float, default=1e-5)),
    }


def _layer_type(layer: int, every: int) -> str:
    return "full_attention" if layer % every == 0 else "sliding_attention"


def _rotary_base(
    file: Path, rotary: Mapping[str, Any], content: Mapping[str, Any], old_name: str, default: float
) -> float:
    """Returns rope_theta of one kind of layers, or the field that held it in older versions."""
    _check_rotary(file, rotary)
    base = _field(file, rotary, "rope_theta", int, float, default=None)
    return float(_field(file, content, old_name, int, float, default=default) if base is None else base)


def _modernbert_json(config: EncoderConfig) -> dict[str, Any]:
    bases = {"full_attention": config.rotary_base, "sliding_attention": config.local_rotary_base}
    return {
        "architectures": ["ModernBertModel"],
        "model_type": _MODERNBERT_TYPE,
        "hidden_activation": "gelu",
        "norm_eps": config.layer_norm_epsilon,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": config.dropout,
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "layer_types": [_layer_type(i, config.global_every) for i in range(config.layers)],
        "local_attention": 2 * config.local_window,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
        "pad_token_id": 0,
        # The defaults are ids of ModernBERT's own vocabulary.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    }


def _decoder_fields(file: Path, content: Mapping[str, Any], kind: str, *, longest: int) -> dict[str, Any]:
    bias = _field(file, content, "attention_bias", bool, default=_DECODER_BIAS[kind])
    if bias != _DECODER_BIAS[kind]:
        raise InputError(f"{file}: attention_bias {bias} is not supported for {kind}; it must be {_DECODER_BIAS[kind]}")
    rotary = _field(file, content, "rope_parameters", dict, default=None)
    rotary = _field(file, content, "rope_scaling", dict, default={}) if rotary is None else rotary
    layers = _field(file, content, "layer_types", list, default=[])
    if others := [layer for layer in layers if layer != "full_attention"]:
        raise InputError(f"{file}: layer_types has {others[0]!r}; every layer must be 'full_attention'")
    _check_rotary(file, rotary)
    base = _field(file, rotary, "rope_theta", int, float, default=None)
    base = _field(file, content, "rope_theta", int, float, default=_DECODER_ROTARY_BASE) if base is None else base
    return {
        "family": kind,
        "max_positions": min(longest, _window(file, content, kind, otherwise=longest)),
        "key_value_heads": _key_value_heads(file, content, kind),
        "head_width": _size(file, "head_dim", _field(file, content, "head_dim", int, default=0), minimum=0),
        "rotary_base": float(base),
        "position_offset": 0,
        "layer_norm_epsilon": float(_field(file, content, "rms_norm_eps", int, float, default=1e-6)),
    }


def _check_rotary(file: Path, rotary: Mapping[str, Any]) -> None:
    """Raises InputError for rotary positions of another type than the default one."""
    scaling = rotary.get("rope_type") or rotary.get("type") or "default"
    if scaling != "default":
        raise InputError(f"{file}: rotary positions of type {scaling} are not supported; the type must be default")
    # The type is checked first, because the fields of another type follow from it.
    if unknown := [name for name, value in rotary.items() if name not in _ROTARY_FIELDS and value is not None]:
        raise InputError(f"{file}: field {unknown[0]} of the rotary positions is not supported; remove it")


def _key_value_heads(file: Path, content: Mapping[str, Any], kind: str) -> int:
    """Returns num_key_value_heads. A null means all heads; where Mistral omits the field, transformers takes 8."""
    missing = 8 if kind == "mistral" and "num_key_value_heads" not in content else 0
    return _size(
        file, "num_key_value_heads", _field(file, content, "num_key_value_heads", int, default=missing), minimum=0
    )


def _window(file: Path, content: Mapping[str, Any], kind: str, *, otherwise: int) -> int:
    """Returns the number of tokens that a token of Mistral sees, itself included; `otherwise` if there is no limit."""
    if kind != "mistral":
        return otherwise
    window = content.get("sliding_window", 4096)  # the default of transformers, where the field is missing
    return otherwise if window is None else _size(file, "sliding_window", window)


def _decoder_json(config: EncoderConfig) -> dict[str, Any]:
    name = config.family.capitalize()
    if config.family == "mistral":
        own: dict[str, Any] = {"sliding_window": None}
    else:
        own = {"attention_bias": _DECODER_BIAS[config.family], "use_sliding_window": False}
    return {
        **own,
        "architectures": [f"{name}Model"],
        "model_type": config.family,
        "num_key_value_heads": config.key_value_heads or config.heads,
        "head_dim": config.head_width or config.width // config.heads,
        "rope_theta": config.rotary_base,
        "rms_norm_eps": config.layer_norm_epsilon,
        "hidden_act": "silu",
        "attention_dropout": config.dropout,
        "tie_word_embeddings": True,
    }


def _table_fields(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    rows = _size(file, "vocab_size", content.get("vocab_size"))
    return {
        "family": "hashed",
        "hashed_features": ("unigrams",),
        "vocabulary_size": rows,
        "hash_buckets": rows,
        "feature_width": _size(file, "hidden_size", content.get("hidden_size")),
        "max_positions": _size(file, "max_position_embeddings", content.get("max_position_embeddings")),
        "position_offset": 0,
        "key_value_heads": 0,
        "head_width": 0,
    }


def _table_json(config: EncoderConfig) -> dict[str, Any]:
    return {
        **_TABLE_EXPECTED,
        "architectures": ["OPTModel"],
        "model_type": _TABLE_TYPE,
        "vocab_size": config.hash_buckets,
        "hidden_size": config.feature_width,
        "word_embed_proj_dim": config.feature_width,
        "num_attention_heads": 1,
        "ffn_dim": 1,
        "max_position_embeddings": config.max_positions,
        "pad_token_id": 0,
        "dropout": 0.0,
        "dtype": "float32",
    }


def _size(file: Path, name: str, value: Any, *, minimum: int = 1) -> int:
    if not minimum <= typed(file, name, value, int, remedy=_REMEDY) < 2**31:
        raise InputError(f"{file}: {name} must lie in [{minimum}, 2^31), found {value}; {_REMEDY}")
    return value


def _field(file: Path, content: Mapping[str, Any], name: str, *kinds: type, default: Any) -> Any:
    """Returns a field after checking that it is one of the kinds; `default` if it is missing or null."""
    value = content.get(name)
    return default if value is None else typed(file, name, value, *kinds, remedy=_REMEDY)
