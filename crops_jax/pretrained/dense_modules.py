"""Writes the network after the features of a hashed tower as Dense modules of sentence-transformers, and reads it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError
from crops_jax.pretrained.tensor_files import open_tensors

_REMEDY = "copy the folder again"
_ACTIVATIONS = {"hidden": "torch.nn.modules.activation.ReLU", "output": "torch.nn.modules.linear.Identity"}


def write_dense(folders: Sequence[Path], tower: Mapping[str, Any]) -> None:
    """Writes each layer and the output of a hashed tower (crops_jax.models.hashed) to a folder of its own."""
    layers = tower["layers"]
    parts = [(layers[key], "hidden") for key in sorted(layers, key=int)] + [(tower["output"], "output")]
    for folder, (layer, role) in zip(folders, parts, strict=True):
        folder.mkdir()
        kernel, bias = (np.asarray(layer[name], np.float32) for name in ("kernel", "bias"))
        settings = {
            "in_features": kernel.shape[0],
            "out_features": kernel.shape[1],
            "bias": True,
            "activation_function": _ACTIVATIONS[role],
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        tensors = {"linear.weight": np.ascontiguousarray(kernel.T), "linear.bias": bias}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def dense_sizes(folders: Sequence[Path], *, source: Path) -> dict[str, int]:
    """Returns the fields of EncoderConfig that the Dense modules of `source` decide.

    Raises InputError, naming the file, if the modules are not the network of a hashed tower.
    """
    if len(folders) < 2:
        raise InputError(
            f"{source}: {len(folders)} Dense modules follow a token table; at least two are needed, hidden ones and a "
            f"last one; {_REMEDY}"
        )
    outputs = []
    for folder in folders:
        file = folder / "config.json"
        settings = read_object(file, remedy=_REMEDY)
        activation = _ACTIVATIONS["output" if folder == folders[-1] else "hidden"]
        if settings.get("activation_function") != activation or settings.get("use_residual"):
            raise InputError(
                f"{file}: activation_function {settings.get('activation_function')} is not supported here; it must be "
                f"{activation}, without a residual"
            )
        outputs.append(typed(file, "out_features", settings.get("out_features"), int, remedy=_REMEDY))
    return {"layers": len(folders) - 1, "feed_forward_width": outputs[0], "width": outputs[-1]}


def read_dense(folders: Sequence[Path]) -> dict[str, Any]:
    """Returns layers and output of a tower as nested dictionaries of unread tensors; an empty one for no folders.

    Raises InputError, naming the folder and the tensor, if a tensor is missing.
    """
    if not folders:
        return {}
    parts = []
    for folder in folders:
        tensors = open_tensors(folder)
        if missing := {"linear.weight", "linear.bias"} - set(tensors):
            raise InputError(f"{folder}: no tensor {min(missing)}; the weights do not belong to its config.json")
        parts.append({"kernel": tensors["linear.weight"].T, "bias": tensors["linear.bias"]})
    return {"layers": dict(enumerate(parts[:-1])), "output": parts[-1]}
