"""Converts the parameters of a tower to and from the tensors of Hugging Face, by their names.

Hugging Face stores the weight of a linear layer as [outputs, inputs]; here the kernel is [inputs, outputs].
"""

from collections import Counter
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
# Layers with one name are matrices that a tensor holds one below the other, in this order.
_MODERNBERT_LINEAR = {
    "attention/query": "attn.Wqkv",
    "attention/key": "attn.Wqkv",
    "attention/value": "attn.Wqkv",
    "attention/output": "attn.Wo",
    "feed_forward/gate": "mlp.Wi",
    "feed_forward/up": "mlp.Wi",
    "feed_forward/down": "mlp.Wo",
}
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
_GEMMA_NORM = {
    "attention_norm": "input_layernorm",
    "attention_output_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_output_norm": "post_feedforward_layernorm",
}
_NOMIC_NORM = {
    "embedding_norm": "embeddings.LayerNorm",
    "attention_norm": "post_attention_layernorm",
    "feed_forward_norm": "post_mlp_layernorm",
}
# The names in the folders that Nomic has published, which are those of the code beside them.
_OLD_NOMIC_NORM = {"embedding_norm": "emb_ln", "attention_norm": "norm1", "feed_forward_norm": "norm2"}
_OLD_NOMIC_LINEAR = {
    "attention/query": "attn.Wqkv",
    "attention/key": "attn.Wqkv",
    "attention/value": "attn.Wqkv",
    "attention/output": "attn.out_proj",
    "feed_forward/gate": "mlp.fc12",
    "feed_forward/up": "mlp.fc11",
    "feed_forward/down": "mlp.fc2",
}
_DECODER_HEAD_NORM = {"attention/query_norm": "self_attn.q_norm", "attention/key_norm": "self_attn.k_norm"}
_DECODER_BIASES = ("attention/query", "attention/key", "attention/value")
# The number of rows that OPT has before the row of the first position.
_OPT_POSITION_OFFSET = 2
# The names in checkpoints that were converted from TensorFlow.
_OLD_NORM = {"weight": "gamma", "bias": "beta"}


def names(config: EncoderConfig) -> dict[str, str]:
    """Returns the Hugging Face name for each path below a tower, such as "layers/0/attention/query/kernel".

    The first name is that of the token table. A hashed tower has only this name; crops_jax.pretrained.dense_modules
    writes its other parameters. Paths with one name are parts of a tensor, one below the other in this order.
    """
    if config.family == "hashed":
        return {"feature_tables/unigrams/embedding": "decoder.embed_tokens.weight"}
    if config.family == "modernbert":
        return _modernbert_names(config)
    if config.family == "nomic_bert":
        return _nomic_names(config, _NOMIC_NORM, _DECODER_LINEAR, layers="layers")
    return _decoder_names(config) if config.is_decoder or config.family == "gemma3" else _bert_names(config)


def _published_names(config: EncoderConfig) -> list[dict[str, str]]:
    """Returns `names`, and those of folders that the code beside the model has written, for families with such."""
    if config.family != "nomic_bert":
        return [names(config)]
    return [names(config), _nomic_names(config, _OLD_NOMIC_NORM, _OLD_NOMIC_LINEAR, layers="encoder.layers")]


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
    published = _published_names(config)
    complete = [each for each in published if all(prefixes[0] + name in tensors for name in each.values())]
    tower, seen = {}, Counter()
    names_by_path = (complete or published)[0]
    parts = Counter(names_by_path.values())
    for path, name in names_by_path.items():
        tensor = _find(tensors, prefixes[0] + name, source)
        tensor = tensor if parts[name] == 1 else tensor.part(seen[name], parts[name])
        seen[name] += 1
        tower[path] = tensor.T if path.endswith("/kernel") else tensor
    return unflatten_dict(tower, sep="/")


def to_hugging_face(tower: Mapping[str, Any], config: EncoderConfig) -> dict[str, np.ndarray]:
    """Returns the tensors of the family's model in float32 by their names.

    The model is BertModel, XLMRobertaModel, MPNetModel, NomicBertModel, ModernBertModel, Gemma3TextModel, Qwen2Model,
    Qwen3Model or MistralModel of transformers. The pooler of the first three, which no sentence vector uses, is zeros:
    without it transformers would add a random one. A hashed tower's table becomes an OPTModel without layers, whose
    positions are zeros.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, name in names(config).items():
        value: Any = tower
        for part in path.split("/"):
            value = value[int(part) if part.isdecimal() and int(part) in value else part]
        array = np.asarray(value, np.float32)
        array = np.ascontiguousarray(array.T if path.endswith("/kernel") else array)
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
        for path, name in _MODERNBERT_LINEAR.items():
            names_by_path[f"layers/{i}/{path}/kernel"] = f"layers.{i}.{name}.weight"
        for path, name in _MODERNBERT_NORM.items():
            if i or path != "attention_norm":
                names_by_path[f"layers/{i}/{path}/scale"] = f"layers.{i}.{name}.weight"
    return names_by_path


def _nomic_names(
    config: EncoderConfig, norms: Mapping[str, str], linear: Mapping[str, str], *, layers: str
) -> dict[str, str]:
    names_by_path = {
        "token_embedding/embedding": "embeddings.word_embeddings.weight",
        "token_type_embedding/embedding": "embeddings.token_type_embeddings.weight",
        **_layer_norm("embedding_norm", norms["embedding_norm"]),
    }
    for i in range(config.layers):
        names_by_path |= {f"layers/{i}/{path}/kernel": f"{layers}.{i}.{name}.weight" for path, name in linear.items()}
        for path in ("attention_norm", "feed_forward_norm"):
            names_by_path |= _layer_norm(f"layers/{i}/{path}", f"{layers}.{i}.{norms[path]}")
    return names_by_path


def _decoder_names(config: EncoderConfig) -> dict[str, str]:
    names_by_path = {"token_embedding/embedding": "embed_tokens.weight", "final_norm/scale": "norm.weight"}
    norms = _GEMMA_NORM if config.family == "gemma3" else _DECODER_NORM
    norms = norms | (_DECODER_HEAD_NORM if config.family in ("qwen3", "gemma3") else {})
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
