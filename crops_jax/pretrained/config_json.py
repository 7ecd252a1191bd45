"""Converts the config.json of a tower, as Hugging Face writes it, to the fields of EncoderConfig and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.json_fields import read_object
from crops_jax.config import EncoderConfig
from crops_jax.errors import InputError
from crops_jax.pretrained import rotary_config
from crops_jax.pretrained.config_fields import REMEDY, Family, optional, size

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
# OPT is the only model of transformers that, without layers, is only its token table (and positions, which are zeros),
# without a norm and a projection. Exported hashed towers have this type. OPT with layers is not read.
_TABLE_TYPE = "opt"
_TABLE_EXPECTED = {"num_hidden_layers": 0, "do_layer_norm_before": False}


def read_sizes(file: Path) -> dict[str, Any]:
    """Returns the fields of EncoderConfig that a config.json decides.

    Raises InputError, naming the file and the field, if the file is broken or its model is not supported.
    """
    content: Mapping[str, Any] = read_object(file, remedy=REMEDY)
    kind = optional(file, content, "model_type", str, default="")
    if kind == _TABLE_TYPE and all(content.get(name) == value for name, value in _TABLE_EXPECTED.items()):
        return _table_fields(file, content)
    if kind not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise InputError(f"{file}: model_type {kind} is not supported; it must be one of {known}")
    family = _FAMILIES[kind]
    content = family.translated(file, content)
    for name, why in _REFUSED.items():
        if content.get(name):
            raise InputError(f"{file}: {name} is not supported: {why}")
    for name, value in family.expected.items():
        if (content.get(name) if content.get(name) is not None else value) != value:
            raise InputError(f"{file}: {name} {content[name]} is not supported; it must be {value}")
    _check_known(file, content, kind)
    sizes = {field: size(file, name, content.get(name)) for name, field in _SIZES.items()}
    return sizes | family.fields(file, content, sizes)


def known_fields(kind: str) -> set[str]:
    """Returns the fields of the config.json of a model type that are read, checked, refused, or without effect."""
    family = _FAMILIES[kind]
    return {*_SIZES, *_IGNORED, *_REFUSED, *family.expected, *family.read, *family.ignored}


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
    family = _FAMILIES[_MODEL_TYPES.get(config.family, config.family)]
    return {**sizes, "initializer_range": 0.02, "dtype": "float32", **family.json(config)}


def _bert_fields(file: Path, content: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    kind = content["model_type"]
    padding = optional(file, content, "pad_token_id", int, default=1) if _BERT_TYPES[kind] else -1
    return {
        "family": "bert",
        "position_offset": size(file, "pad_token_id", padding, minimum=-1) + 1,
        "type_vocabulary_size": size(file, "type_vocab_size", content.get("type_vocab_size", 2)),
        "layer_norm_epsilon": float(optional(file, content, "layer_norm_eps", int, float, default=1e-12)),
    }


def _bert_json(config: EncoderConfig) -> dict[str, Any]:
    offset = config.position_offset
    return {
        **_post_norm_json(config),
        "architectures": ["XLMRobertaModel" if offset else "BertModel"],
        "model_type": "xlm-roberta" if offset else "bert",
        "pad_token_id": offset - 1 if offset else 0,
        "type_vocab_size": config.type_vocabulary_size,
        "position_embedding_type": "absolute",
    }


def _mpnet_fields(file: Path, content: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    buckets = size(file, "relative_attention_num_buckets", content.get("relative_attention_num_buckets", 32))
    return {
        "family": "mpnet",
        "position_offset": _MPNET_OFFSET,
        "relative_buckets": buckets,
        "layer_norm_epsilon": float(optional(file, content, "layer_norm_eps", int, float, default=1e-12)),
    }


def _mpnet_json(config: EncoderConfig) -> dict[str, Any]:
    return {
        **_post_norm_json(config),
        "architectures": ["MPNetModel"],
        "model_type": _MPNET_TYPE,
        "relative_attention_num_buckets": config.relative_buckets,
    }


def _post_norm_json(config: EncoderConfig) -> dict[str, Any]:
    return {
        "layer_norm_eps": config.layer_norm_epsilon,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }


def _table_fields(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    rows = size(file, "vocab_size", content.get("vocab_size"))
    return {
        "family": "hashed",
        "hashed_features": ("unigrams",),
        "vocabulary_size": rows,
        "hash_buckets": rows,
        "feature_width": size(file, "hidden_size", content.get("hidden_size")),
        "max_positions": size(file, "max_position_embeddings", content.get("max_position_embeddings")),
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


_EXPECTED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_causal": False,
    "is_encoder_decoder": False,
}
_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_BERT = Family(
    expected=_EXPECTED,
    read=frozenset(("pad_token_id", "type_vocab_size", "layer_norm_eps")),
    # BertModel does not read embedding_size. Old versions of BERT wrote the fields of the pooler, which vectors do not
    # use.
    ignored=frozenset(
        (*_DROPOUT, "classifier_dropout", "bos_token_id", "directionality", "embedding_size")
        + ("vocab_size_or_config_json_file", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers")
        + ("pooler_size_per_head", "pooler_type", "summary_activation", "summary_first_dropout")
        + ("summary_proj_to_labels", "summary_type", "summary_use_proj")
    ),
    fields=_bert_fields,
    json=_bert_json,
)
_MPNET = Family(
    expected=_EXPECTED,
    read=frozenset(("relative_attention_num_buckets", "layer_norm_eps")),
    ignored=frozenset((*_DROPOUT, "bos_token_id", "pad_token_id")),
    fields=_mpnet_fields,
    json=_mpnet_json,
)
_FAMILIES = {**dict.fromkeys(_BERT_TYPES, _BERT), _MPNET_TYPE: _MPNET, **rotary_config.FAMILIES}
# The model type of a family that has another name.
_MODEL_TYPES = {"gemma3": "gemma3_text"}
