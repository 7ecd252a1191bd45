"""The names that Hugging Face gives the tensors of a tower, in both directions.

A linear layer's weight is stored there as [outputs, inputs], here as kernel [inputs, outputs].
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
_QWEN_LINEAR = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "feed_forward/gate": "mlp.gate_proj",
    "feed_forward/up": "mlp.up_proj",
    "feed_forward/down": "mlp.down_proj",
}
_QWEN_NORM = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
_QWEN_HEAD_NORM = {"attention/query_norm": "self_attn.q_norm", "attention/key_norm": "self_attn.k_norm"}
_QWEN_BIASES = ("attention/query", "attention/key", "attention/value")
# Rows that OPT has before that of the first position.
_OPT_POSITION_OFFSET = 2
# Names that checkpoints converted from TensorFlow still carry.
_OLD_NORM = {"weight": "gamma", "bias": "beta"}


def names(config: EncoderConfig) -> dict[str, str]:
    """Path below a tower ("layers/0/attention/query/kernel") to Hugging Face name; the first is the token table's.

    Of a hashed tower only the table of its tokens: the rest has its place elsewhere
    (crops_jax.pretrained.dense_modules).
    """
    if config.family == "hashed":
        return {"feature_tables/unigrams/embedding": "decoder.embed_tokens.weight"}
    return _bert_names(config.layers) if config.family == "bert" else _qwen_names(config)


def from_hugging_face(tensors: Mapping[str, StoredTensor], config: EncoderConfig, *, source: str) -> dict[str, Any]:
    """The parameters of a tower as a nested dictionary, still in their files.

    `tensors` may hold more (a pooler, a head). Raises InputError, naming `source` and the tensor, where one is missing.
    """
    anchor = next(iter(names(config).values()))
    prefixes = [name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith(f".{anchor}")]
    if len(prefixes) != 1:
        raise InputError(
            f"{source}: exactly one tensor ...{anchor} was expected, found {len(prefixes)}; "
            f"give a folder with the weights of one {config.family} encoder"
        )
    tower = {}
    for path, name in names(config).items():
        tensor = _find(tensors, prefixes[0] + name, source)
        tower[path] = tensor.T if path.endswith("/kernel") else tensor
    return unflatten_dict(tower, sep="/")


def to_hugging_face(tower: Mapping[str, Any], config: EncoderConfig) -> dict[str, np.ndarray]:
    """The tensors of the family's model (BertModel, XLMRobertaModel, Qwen2Model, Qwen3Model) by their names, float32.

    BERT's pooler, which no sentence vector passes through, is zeros: without one transformers would make a random one.
    A hashed tower's table is an OPTModel without layers, whose positions are zeros.
    """
    tensors = {}
    for path, name in names(config).items():
        value: Any = tower
        for part in path.split("/"):
            value = value[int(part) if part.isdecimal() and int(part) in value else part]
        array = np.asarray(value, np.float32)
        tensors[name] = np.ascontiguousarray(array.T if path.endswith("/kernel") else array)
    if config.family == "bert":
        tensors["pooler.dense.weight"] = np.zeros((config.width, config.width), np.float32)
        tensors["pooler.dense.bias"] = np.zeros(config.width, np.float32)
    if config.family == "hashed":
        rows = config.max_positions + _OPT_POSITION_OFFSET
        tensors["decoder.embed_positions.weight"] = np.zeros((rows, config.feature_width), np.float32)
    return tensors


def _bert_names(layers: int) -> dict[str, str]:
    found = {f"{ours}/embedding": f"{theirs}.weight" for ours, theirs in _BERT_EMBEDDINGS.items()}
    found |= _layer_norm("embedding_norm", "embeddings.LayerNorm")
    for i in range(layers):
        ours_at, theirs_at = f"layers/{i}", f"encoder.layer.{i}"
        for ours, theirs in _BERT_LINEAR.items():
            found[f"{ours_at}/{ours}/kernel"] = f"{theirs_at}.{theirs}.weight"
            found[f"{ours_at}/{ours}/bias"] = f"{theirs_at}.{theirs}.bias"
        for ours, theirs in _BERT_NORM.items():
            found |= _layer_norm(f"{ours_at}/{ours}", f"{theirs_at}.{theirs}")
    return found


def _qwen_names(config: EncoderConfig) -> dict[str, str]:
    found = {"token_embedding/embedding": "embed_tokens.weight", "final_norm/scale": "norm.weight"}
    norms = _QWEN_NORM | (_QWEN_HEAD_NORM if config.family == "qwen3" else {})
    biases = _QWEN_BIASES if config.family == "qwen2" else ()
    for i in range(config.layers):
        ours_at, theirs_at = f"layers/{i}", f"layers.{i}"
        found |= {f"{ours_at}/{ours}/kernel": f"{theirs_at}.{theirs}.weight" for ours, theirs in _QWEN_LINEAR.items()}
        found |= {f"{ours_at}/{ours}/bias": f"{theirs_at}.{_QWEN_LINEAR[ours]}.bias" for ours in biases}
        found |= {f"{ours_at}/{ours}/scale": f"{theirs_at}.{theirs}.weight" for ours, theirs in norms.items()}
    return found


def _layer_norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/scale": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


def _find(tensors: Mapping[str, StoredTensor], name: str, source: str) -> StoredTensor:
    stem, _, last = name.rpartition(".")
    for candidate in (name, f"{stem}.{_OLD_NORM[last]}") if stem.endswith("LayerNorm") else (name,):
        if candidate in tensors:
            return tensors[candidate]
    raise InputError(f"{source}: no tensor {name}; the weights do not belong to the config.json beside them")
