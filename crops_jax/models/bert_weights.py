"""The names that Hugging Face gives the tensors of a BERT-family tower, in both directions.

A linear layer's weight is stored there as [outputs, inputs], here as kernel [inputs, outputs].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from crops_jax.errors import InputError

_EMBEDDINGS = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "token_type_embedding": "embeddings.token_type_embeddings",
}
_LAYER_LINEAR = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "feed_forward/up": "intermediate.dense",
    "feed_forward/down": "output.dense",
}
_LAYER_NORM = {"attention_norm": "attention.output.LayerNorm", "feed_forward_norm": "output.LayerNorm"}
# Names that checkpoints converted from TensorFlow still carry.
_OLD_NORM = {"weight": "gamma", "bias": "beta"}


def names(layers: int) -> dict[str, str]:
    """Path below a tower ("layers/0/attention/query/kernel") to Hugging Face name, for a tower of `layers` layers."""
    found = {f"{ours}/embedding": f"{theirs}.weight" for ours, theirs in _EMBEDDINGS.items()}
    found |= _norm_names("embedding_norm", "embeddings.LayerNorm")
    for i in range(layers):
        for ours, theirs in _LAYER_LINEAR.items():
            found[f"layers/{i}/{ours}/kernel"] = f"encoder.layer.{i}.{theirs}.weight"
            found[f"layers/{i}/{ours}/bias"] = f"encoder.layer.{i}.{theirs}.bias"
        for ours, theirs in _LAYER_NORM.items():
            found |= _norm_names(f"layers/{i}/{ours}", f"encoder.layer.{i}.{theirs}")
    return found


def from_hugging_face(tensors: Mapping[str, np.ndarray], *, layers: int, source: str) -> dict[str, Any]:
    """The parameters of a tower as a nested dictionary, float32. `tensors` may hold more (a pooler, a head).

    Raises InputError, naming `source` and the tensor, where one is missing.
    """
    anchor = "embeddings.word_embeddings.weight"
    prefixes = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    if len(prefixes) != 1:
        raise InputError(
            f"{source}: exactly one tensor ...{anchor} was expected, found {len(prefixes)}; "
            "give a folder with the weights of one BERT-family encoder"
        )
    tower: dict[str, Any] = {}
    for path, name in names(layers).items():
        tensor = _find(tensors, prefixes[0] + name, source).astype(np.float32)
        *parents, leaf = path.split("/")
        place = tower
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = tensor.T if leaf == "kernel" else tensor
    return tower


def to_hugging_face(tower: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a `BertModel` or `XLMRobertaModel` by their names there, float32.

    Their pooler, which no sentence vector passes through, is zeros: without one transformers would make a random one.
    """
    tensors = {}
    for path, name in names(len(tower["layers"])).items():
        value: Any = tower
        for part in path.split("/"):
            value = value[int(part) if part.isdecimal() and int(part) in value else part]
        array = np.asarray(value, np.float32)
        tensors[name] = np.ascontiguousarray(array.T if path.endswith("/kernel") else array)
    width = len(tensors["embeddings.LayerNorm.bias"])
    return tensors | {
        "pooler.dense.weight": np.zeros((width, width), np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }


def _norm_names(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/scale": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


def _find(tensors: Mapping[str, np.ndarray], name: str, source: str) -> np.ndarray:
    stem, _, last = name.rpartition(".")
    for candidate in (name, f"{stem}.{_OLD_NORM[last]}") if stem.endswith("LayerNorm") else (name,):
        if candidate in tensors:
            return tensors[candidate]
    raise InputError(f"{source}: no tensor {name}; the weights do not belong to the config.json beside them")
