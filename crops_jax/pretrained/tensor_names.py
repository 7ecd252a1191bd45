"""Converts the parameters of a tower to and from the tensors of Hugging Face, by their names.

Hugging Face stores the weight of a linear layer as [outputs, inputs]; here the kernel is [inputs, outputs].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from crops_jax.config import EncoderConfig
from crops_jax.errors import InputError
from crops_jax.pretrained.tensor_files import StoredTensor

_BERT_EMBEDDINGS = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "token_type_embedding": "embeddings.token_type_embeddings",
}
_BERT_LINEAR = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "feed_forward/up": "intermediate.dense",
    "feed_forward/down": "output.dense",
}
_BERT_NORM = {"attention_norm": "attention.output.LayerNorm", "feed_forward_norm": "output.LayerNorm"}
_MPNET_EMBEDDINGS = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "relative_bias": "encoder.relative_attention_bias",
}
_MPNET_LINEAR = _BERT_LINEAR | {
    "attention/query": "attention.attn.q",
    "attention/key": "attention.attn.k",
    "attention/value": "attention.attn.v",
    "attention/output": "attention.attn.o",
}
_MPNET_NORM = _BERT_NORM | {"attention_norm": "attention.LayerNorm"}
_MODERNBERT_LINEAR = {
    "attention/query": ("attn.Wqkv", 0, 3),
    "attention/key": ("attn.Wqkv", 1, 3),
    "attention/value": ("attn.Wqkv", 2, 3),
    "attention/output": ("attn.Wo", 0, 1),
    "feed_forward/gate": ("mlp.Wi", 0, 2),
    "feed_forward/up": ("mlp.Wi", 1, 2),
    "feed_forward/down": ("mlp.Wo", 0, 1),
}
"""Layer -> its name, and which of how many matrices it is that this tensor holds one below the other."""
_MODERNBERT_NORM = {"attention_norm": "attn_norm", "feed_forward_norm": "mlp_norm"}
_DECODER_LINEAR = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "feed_forward/gate": "mlp.gate_proj",
    "feed_forward/up": "mlp.up_proj",
    "feed_forward/down": "mlp.down_proj",
}
_DECODER_NORM = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
_DECODER_HEAD_NORM = {"attention/query_norm": "self_attn.q_norm", "attention/key_norm": "self_attn.k_norm"}
_DECODER_BIASES = ("attention/query", "attention/key", "attention/value")
# The number of rows that OPT has before the row of the first position.
_OPT_POSITION_OFFSET = 2
# The names in checkpoints that were converted from TensorFlow.
_OLD_NORM = {"weight": "gamma", "bias": "beta"}


def names(config: EncoderConfig) -> dict[str, str]:
    """Returns the Hugging Face name for each path below a tower, such as "layers/0/attention/query/kernel".

    The first name is that of the token table. A hashed tower has only this name; crops_jax.pretrained.dense_modules
    writes its other parameters.
    """
    if config.family == "hashed":
        return {"feature_tables/unigrams/embedding": "decoder.embed_tokens.weight"}
    if config.family == "modernbert":
        return _modernbert_names(config)
    return _decoder_names(config) if config.is_decoder else _bert_names(config)


def _parts(config: EncoderConfig) -> dict[str, tuple[int, int]]:
    """Returns which of how many matrices of one tensor a path is, for the paths that share a tensor."""
    if config.family != "modernbert":
        return {}
    return {
        f"layers/{i}/{path}/kernel": (index, count)
        for i in range(config.layers)
        for path, (_, index, count) in _MODERNBERT_LINEAR.items()
        if count > 1
    }


def from_hugging_face(tensors: Mapping[str, StoredTensor], config: EncoderConfig, *, source: str) -> dict[str, Any]:
    """Returns the parameters of a tower as a nested dictionary of unread tensors.

    `tensors` can hold others too (a pooler, a head).

    Raises InputError, naming `source` and the tensor, if a tensor is missing.
    """
    table_name = next(iter(names(config).values()))
    prefixes = [
        name.removesuffix(table_name) for name in tensors if name == table_name or name.endswith(f".{table_name}")
    ]
    if len(prefixes) != 1:
        raise InputError(
            f"{source}: exactly one tensor ...{table_name} was expected, found {len(prefixes)}; "
            f"give a folder with the weights of one {config.family} encoder"
        )
    tower, parts = {}, _parts(config)
    for path, name in names(config).items():
        tensor = _find(tensors, prefixes[0] + name, source)
        tensor = tensor.part(*parts[path]) if path in parts else tensor
        tower[path] = tensor.T if path.endswith("/kernel") else tensor
    return unflatten_dict(tower, sep="/")


def to_hugging_face(tower: Mapping[str, Any], config: EncoderConfig) -> dict[str, np.ndarray]:
    """Returns the tensors of the family's model in float32 by their names.

    The model is BertModel, XLMRobertaModel, MPNetModel, ModernBertModel, Qwen2Model, Qwen3Model or MistralModel of
    transformers. The pooler of the first three, which no sentence vector uses, is zeros: without it transformers would
    add a random one. A hashed tower's table becomes an OPTModel without layers, whose positions are zeros.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, name in names(config).items():
        value: Any = tower
        for part in path.split("/"):
            value = value[int(part) if part.isdecimal() and int(part) in value else part]
        array = np.asarray(value, np.float32)
        array = np.ascontiguousarray(array.T if path.endswith("/kernel") else array)
        # The parts of a tensor follow each other in `names`.
        tensors[name] = np.concatenate([tensors[name], array]) if name in tensors else array
    if config.family in ("bert", "mpnet"):
        tensors["pooler.dense.weight"] = np.zeros((config.width, config.width), np.float32)
        tensors["pooler.dense.bias"] = np.zeros(config.width, np.float32)
    if config.family == "hashed":
        rows = config.max_positions + _OPT_POSITION_OFFSET
        tensors["decoder.embed_positions.weight"] = np.zeros((rows, config.feature_width), np.float32)
    return tensors


def _bert_names(config: EncoderConfig) -> dict[str, str]:
    is_mpnet = config.family == "mpnet"
    embeddings, linear, norms = (
        (_MPNET_EMBEDDINGS, _MPNET_LINEAR, _MPNET_NORM) if is_mpnet else (_BERT_EMBEDDINGS, _BERT_LINEAR, _BERT_NORM)
    )
    names_by_path = {f"{path}/embedding": f"{name}.weight" for path, name in embeddings.items()}
    names_by_path |= _layer_norm("embedding_norm", "embeddings.LayerNorm")
    for i in range(config.layers):
        layer_path, layer_name = f"layers/{i}", f"encoder.layer.{i}"
        for path, name in linear.items():
            names_by_path[f"{layer_path}/{path}/kernel"] = f"{layer_name}.{name}.weight"
            names_by_path[f"{layer_path}/{path}/bias"] = f"{layer_name}.{name}.bias"
        for path, name in norms.items():
            names_by_path |= _layer_norm(f"{layer_path}/{path}", f"{layer_name}.{name}")
    return names_by_path


def _modernbert_names(config: EncoderConfig) -> dict[str, str]:
    names_by_path = {
        "token_embedding/embedding": "embeddings.tok_embeddings.weight",
        "embedding_norm/scale": "embeddings.norm.weight",
        "final_norm/scale": "final_norm.weight",
    }
    for i in range(config.layers):
        for path, (name, _, _) in _MODERNBERT_LINEAR.items():
            names_by_path[f"layers/{i}/{path}/kernel"] = f"layers.{i}.{name}.weight"
        for path, name in _MODERNBERT_NORM.items():
            if i or path != "attention_norm":
                names_by_path[f"layers/{i}/{path}/scale"] = f"layers.{i}.{name}.weight"
    return names_by_path


def _decoder_names(config: EncoderConfig) -> dict[str, str]:
    names_by_path = {"token_embedding/embedding": "embed_tokens.weight", "final_norm/scale": "norm.weight"}
    norms = _DECODER_NORM | (_DECODER_HEAD_NORM if config.family == "qwen3" else {})
    biases = _DECODER_BIASES if config.family == "qwen2" else ()
    for i in range(config.layers):
        layer_path, layer_name = f"layers/{i}", f"layers.{i}"
        names_by_path |= {
            f"{layer_path}/{path}/kernel": f"{layer_name}.{name}.weight" for path, name in _DECODER_LINEAR.items()
        }
        names_by_path |= {f"{layer_path}/{path}/bias": f"{layer_name}.{_DECODER_LINEAR[path]}.bias" for path in biases}
        names_by_path |= {f"{layer_path}/{path}/scale": f"{layer_name}.{name}.weight" for path, name in norms.items()}
    return names_by_path


def _layer_norm(path: str, name: str) -> dict[str, str]:
    return {f"{path}/scale": f"{name}.weight", f"{path}/bias": f"{name}.bias"}


def _find(tensors: Mapping[str, StoredTensor], name: str, source: str) -> StoredTensor:
    stem, _, last = name.rpartition(".")
    for candidate in (name, f"{stem}.{_OLD_NORM[last]}") if stem.endswith("LayerNorm") else (name,):
        if candidate in tensors:
            return tensors[candidate]
    raise InputError(f"{source}: no tensor {name}; the weights do not belong to the config.json beside them")
