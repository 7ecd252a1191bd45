"""Reads and writes the Dense modules of sentence-transformers: linear layers with an activation after the pooling.

The network after the features of a hashed tower (crops_jax.models.hashed) is written as such modules too: one for each
hidden layer, with ReLU, and one for the output.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.config import EncoderConfig
from crops_jax.errors import InputError
from crops_jax.pretrained.config_fields import REMEDY, optional, size
from crops_jax.pretrained.tensor_files import open_tensors

_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "silu": "torch.nn.modules.activation.SiLU",
}
"""The activations of EncoderConfig.dense_activations, and their classes in torch."""
_EXPECTED = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
    "use_residual": False,
}
_READ = {"in_features", "out_features", "bias", "activation_function"}


def dense_fields(folders: Sequence[Path], *, inputs: int) -> dict[str, tuple]:
    """Returns the fields of EncoderConfig that Dense modules decide, in their order; empty ones for no folders.

    Args:
      folders: the folder of each module.
      inputs: the width of the pooled states.

    Raises InputError, naming the file and the field, if a module is broken, not supported, or takes another width than
    the one before it gives.
    """
    widths, biases, activations = [inputs], [], []
    for folder in folders:
        file = folder / "config.json"
        settings = read_object(file, remedy=REMEDY)
        for name, value in _EXPECTED.items():
            if (found := settings.get(name)) is not None and found != value:
                raise InputError(f"{file}: {name} {found} is not supported; it must be {value}")
        if unknown := [name for name in settings if name not in _EXPECTED and name not in _READ]:
            raise InputError(
                f"{file}: field {unknown[0]} of a Dense module is not known; remove it if it has no effect"
            )
        if size(file, "in_features", settings.get("in_features")) != widths[-1]:
            raise InputError(
                f"{file}: in_features is {settings['in_features']}, and the module before it gives {widths[-1]} "
                f"numbers; {REMEDY}"
            )
        widths.append(size(file, "out_features", settings.get("out_features")))
        biases.append(optional(file, settings, "bias", bool, default=True))
        activations.append(_activation(file, settings))
    return {
        "dense_widths": tuple(widths[1:]),
        "dense_biases": tuple(biases),
        "dense_activations": tuple(activations),
    }


def hashed_fields(folders: Sequence[Path], *, inputs: int, source: Path) -> dict[str, Any]:
    """Returns the fields of EncoderConfig that the Dense modules of a hashed tower decide.

    Args:
      folders, inputs: see `dense_fields`.
      source: the file that lists the modules.

    Raises InputError, naming the file, if the modules are not the network of a hashed tower.
    """
    if len(folders) < 2:
        raise InputError(
            f"{source}: {len(folders)} Dense modules follow a token table; at least two are needed, hidden ones and a "
            f"last one; {REMEDY}"
        )
    found = dense_fields(folders, inputs=inputs)
    widths = found["dense_widths"]
    is_network = found["dense_activations"] == hashed_activations(len(folders) - 1) and all(found["dense_biases"])
    if not is_network or len(set(widths[:-1])) > 1:
        raise InputError(
            f"{source}: the Dense modules after a token table must be hidden layers of one width with ReLU and a last "
            f"one with Identity, all with biases; found {', '.join(found['dense_activations'])} of {widths} numbers"
        )
    layers = {"layers": len(folders) - 1, "feed_forward_width": widths[0], "width": widths[-1]}
    return layers | dense_fields((), inputs=inputs)


def hashed_activations(layers: int) -> tuple[str, ...]:
    """Returns the activations of the Dense modules that are the network of a hashed tower with so many layers."""
    return (*["relu"] * layers, "identity")


def dense_of_tower(tower: Mapping[str, Any], config: EncoderConfig) -> list[tuple[Mapping[str, Any], str]]:
    """Returns the layer and the activation of each Dense module of a tower, from its parameters."""
    if config.family == "hashed":
        layers, activations = [*_in_order(tower["layers"]), tower["output"]], hashed_activations(config.layers)
    else:
        layers, activations = _in_order(tower.get("dense", {})), config.dense_activations
    return list(zip(layers, activations, strict=True))


def write_dense(folder: Path, layer: Mapping[str, Any], *, activation: str) -> None:
    """Writes a linear layer with its activation as a Dense module to a new folder."""
    folder.mkdir()
    kernel = np.asarray(layer["kernel"], np.float32)
    settings = {
        "in_features": kernel.shape[0],
        "out_features": kernel.shape[1],
        "bias": "bias" in layer,
        "activation_function": _ACTIVATIONS[activation],
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tensors = {"linear.weight": np.ascontiguousarray(kernel.T)}
    tensors |= {"linear.bias": np.asarray(layer["bias"], np.float32)} if "bias" in layer else {}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def read_dense(folders: Sequence[Path], config: EncoderConfig) -> dict[str, Any]:
    """Returns the parameters of a tower that its Dense modules hold, as nested dictionaries of unread tensors.

    Raises InputError, naming the folder and the tensor, if a tensor is missing.
    """
    is_hashed = config.family == "hashed"
    layers = []
    for i, folder in enumerate(folders):
        tensors = open_tensors(folder)
        has_bias = is_hashed or config.dense_biases[i]
        if missing := {"linear.weight", *["linear.bias"] * has_bias} - set(tensors):
            raise InputError(f"{folder}: no tensor {min(missing)}; the weights do not belong to its config.json")
        layers.append({"kernel": tensors["linear.weight"].T, **({"bias": tensors["linear.bias"]} if has_bias else {})})
    if is_hashed:
        return {"layers": dict(enumerate(layers[:-1])), "output": layers[-1]}
    return {"dense": dict(enumerate(layers))} if layers else {}


def _activation(file: Path, settings: Mapping[str, Any]) -> str:
    """Returns the activation of a module by its name here. Where the field is missing, it is Tanh."""
    found = typed(
        file, "activation_function", settings.get("activation_function", _ACTIVATIONS["tanh"]), str, remedy=REMEDY
    )
    # Both torch.nn.Tanh and torch.nn.modules.activation.Tanh name a class. Classes of other packages are not loaded.
    for name, path in _ACTIVATIONS.items():
        if found.startswith("torch.nn.") and found.rpartition(".")[2] == path.rpartition(".")[2]:
            return name
    known = ", ".join(path.rpartition(".")[2] for path in _ACTIVATIONS.values())
    raise InputError(f"{file}: activation_function {found} is not supported; it must be torch's {known}")


def _in_order(layers: Mapping[Any, Any]) -> list[Mapping[str, Any]]:
    return [layers[key] for key in sorted(layers, key=int)]
