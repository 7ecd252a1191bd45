"""Converts the config.json of the families with rotary positions to the fields of EncoderConfig and back.

They are NomicBERT, ModernBERT, the Gemma 3 of EmbeddingGemma, and the decoders Qwen2, Qwen3 and Mistral.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crops_jax.config import EncoderConfig
from crops_jax.errors import InputError
from crops_jax.pretrained.config_fields import Family, optional, rotary_base, size

_NOT_CAUSAL = {"is_causal": False, "is_decoder": False, "is_encoder_decoder": False}
_DECODER_BIAS = {"qwen2": True, "qwen3": False, "mistral": False}
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
# The names of the sizes in the folders of NomicBERT whose code is not that of transformers. The folder of
# nomic-embed-text-v1.5 has both.
_OLD_NOMIC = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}


def _nomic_content(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content with the names of transformers alone.

    auto_map is left out if it names classes of NomicBERT only: what they compute follows from the fields, all of which
    are checked.
    """
    translated = {name: value for name, value in content.items() if name not in _OLD_NOMIC}
    for old, new in _OLD_NOMIC.items():
        if (value := content.get(old)) is None:
            continue
        known = content.get(new)
        if new == "max_position_embeddings" and known is not None:
            # Rotary positions have no table, so that the greater number counts.
            value = max(size(file, old, value), size(file, new, known))
        elif known is not None and known != value:
            raise InputError(f"{file}: {old} {value} and {new} {known} contradict each other; remove the wrong one")
        translated[new] = value
    classes = [str(name).rpartition(".")[2] for name in optional(file, content, "auto_map", dict, default={}).values()]
    if all(name.startswith("NomicBert") for name in classes):
        translated.pop("auto_map", None)
    return translated


def _nomic_fields(file: Path, content: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    head_width = optional(file, content, "head_dim", int, default=None)
    if head_width is not None and head_width * sizes["heads"] != sizes["width"]:
        raise InputError(
            f"{file}: head_dim {head_width} is not supported; it must be hidden_size / num_attention_heads"
        )
    rotary = optional(file, content, "rope_parameters", dict, default={})
    return {
        "family": "nomic_bert",
        "position_offset": 0,
        "type_vocabulary_size": size(file, "type_vocab_size", content.get("type_vocab_size", 2)),
        "rotary_base": rotary_base(file, rotary, content, "rotary_emb_base", 1000.0),
        "layer_norm_epsilon": float(optional(file, content, "layer_norm_eps", int, float, default=1e-12)),
    }


def _nomic_json(config: EncoderConfig) -> dict[str, Any]:
    return {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "hidden_act": "silu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "type_vocab_size": config.type_vocabulary_size,
        "layer_norm_eps": config.layer_norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "pad_token_id": 0,
    }


def _modernbert_fields(file: Path, content: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    every = size(file, "global_attn_every_n_layers", content.get("global_attn_every_n_layers", 3))
    kinds = optional(file, content, "layer_types", list, default=None)
    if kinds is not None:
        others = [i for i, kind in enumerate(kinds[1:], start=1) if kind == _GLOBAL]
        every = others[0] if others else max(len(kinds), 1)
        _check_layer_types(file, kinds, [i % every == 0 for i in range(sizes["layers"])], first="first")
    rotary = optional(file, content, "rope_parameters", dict, default={})
    bases = {
        kind: rotary_base(file, optional(file, rotary, f"{kind}_attention", dict, default={}), content, old, default)
        for kind, old, default in (("full", "global_rope_theta", 160_000.0), ("sliding", "local_rope_theta", 10_000.0))
    }
    return {
        "family": "modernbert",
        "position_offset": 0,
        "rotary_base": bases["full"],
        "local_rotary_base": bases["sliding"],
        "local_window": size(file, "local_attention", content.get("local_attention", 128), minimum=2) // 2,
        "global_every": every,
        "layer_norm_epsilon": float(optional(file, content, "norm_eps", int, float, default=1e-5)),
    }


def _modernbert_json(config: EncoderConfig) -> dict[str, Any]:
    return {
        **_windowed_json(config),
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        "hidden_activation": "gelu",
        "norm_eps": config.layer_norm_epsilon,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": config.dropout,
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "local_attention": 2 * config.local_window,
        "pad_token_id": 0,
        # The defaults are ids of ModernBERT's own vocabulary.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    }


def _gemma_fields(file: Path, content: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("use_bidirectional_attention") is not True:
        raise InputError(
            f"{file}: use_bidirectional_attention must be true, as in EmbeddingGemma; a Gemma with causal "
            "attention is not supported"
        )
    every = size(file, "sliding_window_pattern", content.get("sliding_window_pattern", 6))
    kinds = optional(file, content, "layer_types", list, default=None)
    if kinds is not None:
        every = 1 + (kinds.index(_GLOBAL) if _GLOBAL in kinds else len(kinds))
        _check_layer_types(file, kinds, [i % every == every - 1 for i in range(sizes["layers"])], first="n-th")
    rotary = optional(file, content, "rope_parameters", dict, default={})
    whole = optional(file, rotary, _GLOBAL, dict, default={}) | optional(
        file, content, "rope_scaling", dict, default={}
    )
    local = optional(file, rotary, _LOCAL, dict, default={})
    return {
        "family": "gemma3",
        "position_offset": 0,
        # The values are those of transformers where a field is missing.
        "key_value_heads": size(file, "num_key_value_heads", content.get("num_key_value_heads", 4)),
        "head_width": size(file, "head_dim", content.get("head_dim", 256)),
        "query_scalar": size(file, "query_pre_attn_scalar", content.get("query_pre_attn_scalar", 256)),
        "rotary_base": rotary_base(file, whole, content, "rope_theta", 1_000_000.0),
        "local_rotary_base": rotary_base(file, local, content, "rope_local_base_freq", 10_000.0),
        # A token sees those that are less than sliding_window // 2 + 1 positions away.
        "local_window": size(file, "sliding_window", content.get("sliding_window", 4096), minimum=2) // 2,
        "global_every": every,
        "layer_norm_epsilon": float(optional(file, content, "rms_norm_eps", int, float, default=1e-6)),
    }


def _gemma_json(config: EncoderConfig) -> dict[str, Any]:
    head_width = config.head_width or config.width // config.heads
    return {
        **_windowed_json(config),
        "architectures": ["Gemma3TextModel"],
        "model_type": "gemma3_text",
        "use_bidirectional_attention": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "num_key_value_heads": config.key_value_heads or config.heads,
        "head_dim": head_width,
        "query_pre_attn_scalar": config.query_scalar or head_width,
        "rms_norm_eps": config.layer_norm_epsilon,
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "sliding_window": 2 * config.local_window,
        "pad_token_id": 0,
        # The defaults are ids of Gemma's own vocabulary.
        **dict.fromkeys(("bos_token_id", "eos_token_id")),
    }


def _check_layer_types(file: Path, kinds: list, global_layers: list[bool], *, first: str) -> None:
    if kinds != _layer_types(global_layers):
        raise InputError(
            f"{file}: layer_types {', '.join(map(str, kinds))} is not supported; one of every n layers, from the "
            f"{first} on, must be {_GLOBAL}, and the others {_LOCAL}"
        )


def _layer_types(global_layers: Sequence[bool]) -> list[str]:
    return [_GLOBAL if is_global else _LOCAL for is_global in global_layers]


def _windowed_json(config: EncoderConfig) -> dict[str, Any]:
    bases = {_GLOBAL: config.rotary_base, _LOCAL: config.local_rotary_base}
    return {
        "layer_types": _layer_types(config.global_layers),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
    }


def _decoder_fields(file: Path, content: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    kind, longest = content["model_type"], sizes["max_positions"]
    bias = optional(file, content, "attention_bias", bool, default=_DECODER_BIAS[kind])
    if bias != _DECODER_BIAS[kind]:
        raise InputError(f"{file}: attention_bias {bias} is not supported for {kind}; it must be {_DECODER_BIAS[kind]}")
    rotary = optional(file, content, "rope_parameters", dict, default=None)
    rotary = optional(file, content, "rope_scaling", dict, default={}) if rotary is None else rotary
    layers = optional(file, content, "layer_types", list, default=[])
    if others := [layer for layer in layers if layer != "full_attention"]:
        raise InputError(f"{file}: layer_types has {others[0]!r}; every layer must be 'full_attention'")
    return {
        "family": kind,
        "max_positions": min(longest, _window(file, content, kind, otherwise=longest)),
        "key_value_heads": _key_value_heads(file, content, kind),
        "head_width": size(file, "head_dim", optional(file, content, "head_dim", int, default=0), minimum=0),
        "rotary_base": rotary_base(file, rotary, content, "rope_theta", 10_000.0),
        "position_offset": 0,
        "layer_norm_epsilon": float(optional(file, content, "rms_norm_eps", int, float, default=1e-6)),
    }


def _key_value_heads(file: Path, content: Mapping[str, Any], kind: str) -> int:
    """Returns num_key_value_heads. A null means all heads; where Mistral omits the field, transformers takes 8."""
    missing = 8 if kind == "mistral" and "num_key_value_heads" not in content else 0
    return size(
        file, "num_key_value_heads", optional(file, content, "num_key_value_heads", int, default=missing), minimum=0
    )


def _window(file: Path, content: Mapping[str, Any], kind: str, *, otherwise: int) -> int:
    """Returns the number of tokens that a token of Mistral sees, itself included; `otherwise` if there is no limit."""
    if kind != "mistral":
        return otherwise
    window = content.get("sliding_window", 4096)  # the default of transformers, where the field is missing
    return otherwise if window is None else size(file, "sliding_window", window)


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


_DECODER_EXPECTED = {"hidden_act": "silu", "use_sliding_window": False, "is_causal": True, "is_encoder_decoder": False}
# The sliding windows of Qwen are off with use_sliding_window, which must be false; layer_types says the same of each
# layer. A token of Mistral sees the last sliding_window tokens, so that no text may be longer.
_DECODER = Family(
    expected=_DECODER_EXPECTED,
    read=frozenset(
        ("sliding_window", "num_key_value_heads", "head_dim", "rope_theta", "rope_parameters", "rope_scaling")
        + ("rms_norm_eps", "attention_bias", "layer_types")
    ),
    ignored=frozenset(("max_window_layers", "bos_token_id", "pad_token_id")),
    fields=_decoder_fields,
    json=_decoder_json,
)
_MODERNBERT = Family(
    expected=_NOT_CAUSAL
    | {"hidden_activation": "gelu", "norm_bias": False, "attention_bias": False, "mlp_bias": False},
    read=frozenset(
        ("norm_eps", "layer_types", "global_attn_every_n_layers", "local_attention")
        + ("rope_parameters", "global_rope_theta", "local_rope_theta")
    ),
    # The first versions of ModernBERT wrote fields of BERT that it does not read.
    ignored=frozenset(
        ("initializer_cutoff_factor", "embedding_dropout", "mlp_dropout", "decoder_bias", "classifier_pooling")
        + ("classifier_dropout", "classifier_bias", "classifier_activation", "deterministic_flash_attn")
        + ("sparse_prediction", "sparse_pred_ignore_index", "reference_compile", "repad_logits_with_grad")
        + ("position_embedding_type", "layer_norm_eps", "pad_token_id", "bos_token_id")
    ),
    fields=_modernbert_fields,
    json=_modernbert_json,
)
_GEMMA = Family(
    # transformers does not apply attn_logit_softcapping in every implementation of attention.
    expected=_NOT_CAUSAL
    | {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "attn_logit_softcapping": None},
    read=frozenset(
        ("use_bidirectional_attention", "num_key_value_heads", "head_dim", "query_pre_attn_scalar", "rms_norm_eps")
        + ("sliding_window", "sliding_window_pattern", "layer_types")
        + ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq")
    ),
    # The soft cap of the logits belongs to the language model. transformers reads the pattern without underscore.
    ignored=frozenset(("final_logit_softcapping", "_sliding_window_pattern", "bos_token_id", "pad_token_id")),
    fields=_gemma_fields,
    json=_gemma_json,
)
_NOMIC = Family(
    expected=_NOT_CAUSAL
    | {"hidden_act": "silu", "activation_function": "swiglu", "causal": False, "add_cross_attention": False}
    | {"prenorm": False, "parallel_block": False, "use_rms_norm": False}
    | {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "norm_mlp": False}
    | {"rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_head_dim": False}
    | {"rotary_emb_scale_base": None, "rotary_scaling_factor": None, "num_heads_kv": None, "num_experts": 0}
    | {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    read=frozenset(
        ("type_vocab_size", "layer_norm_eps", "rope_parameters", "rotary_emb_base", "head_dim", *_OLD_NOMIC)
    ),
    # The shapes of the weights say what pad_vocab_size_multiple has done. max_trained_positions is that of
    # rotary_scaling_factor, and parallel_block_tied_norm that of parallel_block.
    ignored=frozenset(
        ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "bos_token_id", "pad_token_id")
        + ("attn_pdrop", "embd_pdrop", "resid_pdrop", "dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln")
        + ("use_flash_attn", "use_xentropy", "reorder_and_upcast_attn", "last_layer_subset", "add_pooling_layer")
        + ("max_trained_positions", "parallel_block_tied_norm", "pad_vocab_size_multiple", "summary_activation")
        + (
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
            "position_embedding_type",
        )
    ),
    fields=_nomic_fields,
    json=_nomic_json,
    translated=_nomic_content,
)

FAMILIES = {
    "nomic_bert": _NOMIC,
    "modernbert": _MODERNBERT,
    "gemma3_text": _GEMMA,
    **dict.fromkeys(_DECODER_BIAS, _DECODER),
}
"""How each model type is read and written."""
