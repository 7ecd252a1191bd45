"""The platforms that JAX computes on: what this machine has, and what the user insists on.

Everything here happens before JAX creates its devices, and nothing here loads JAX into this process.
"""

import glob
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Literal, NamedTuple

from crops_jax.errors import InputError, one_line

Device = Literal["cpu", "gpu", "tpu"]
"""The kinds of devices that a user can insist on."""

_PLATFORMS = "JAX_PLATFORMS"
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_ROCM_PLUGINS = ("jax_rocm60_plugin", "jax_rocm7_plugin")
_NVIDIA_FILES = ("/proc/driver/nvidia/gpus/*", "/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_INSTALL = 'install it with .venv/bin/python -m uv pip install --python .venv/bin/python "jax[{}]" (see BUILD.md)'
_SECONDS_TO_ANSWER = 120


class Machine(NamedTuple):
    """The devices of this machine, and the libraries that JAX has for them.

    nvidia_gpu, tpu: whether it seems to have such a device.
    cuda, rocm, libtpu: whether JAX has the library for NVIDIA GPUs, for AMD GPUs and for TPUs.
    """

    nvidia_gpu: bool
    tpu: bool
    cuda: bool
    rocm: bool
    libtpu: bool


def this_machine() -> Machine:
    """Returns what this machine has, from its files and the installed packages. No device is opened."""
    return Machine(
        nvidia_gpu=any(glob.glob(pattern) for pattern in _NVIDIA_FILES) or _nvidia_smi_lists_one(),
        tpu=_has_tpu_chips(),
        cuda=any(importlib.util.find_spec(name) for name in _CUDA_PLUGINS),
        rocm=any(importlib.util.find_spec(name) for name in _ROCM_PLUGINS),
        libtpu=importlib.util.find_spec("libtpu") is not None,
    )


def has_tpu() -> bool:
    """Returns whether this machine seems to have TPU chips and the library for them; neither is opened."""
    return _has_tpu_chips() and importlib.util.find_spec("libtpu") is not None


def insist_on(
    device: Device,
    environment: MutableMapping[str, str],
    *,
    alone: bool = True,
    machine: Callable[[], Machine] | None = None,
    obstacle: Callable[[Mapping[str, str]], str] | None = None,
) -> None:
    """Makes JAX compute on a kind of device, and on no other one.

    Args:
      device: the kind of device.
      environment: os.environ, which the child processes of this one inherit.
      alone: whether this is the only process of the program. Then another process tries a GPU first.
      machine: returns what the machine has, by default `this_machine`.
      obstacle: returns why JAX cannot use a GPU in an environment, or "". By default a process of its own tries it.

    Raises:
      InputError: there is no such device, or JAX cannot use it. The message says what to do.
    """
    if device == "cpu":
        set_platforms(environment, "cpu")
        return
    found = (machine or this_machine)()
    if device == "tpu":
        if not found.tpu:
            raise InputError(f"--device tpu: this machine has no TPU; {_elsewhere('a TPU')}")
        if not found.libtpu:
            raise InputError(f"--device tpu: JAX is installed without libtpu; {_INSTALL.format('tpu')}")
        set_platforms(environment, "tpu,cpu")
        return
    if not found.nvidia_gpu and not found.rocm:
        raise InputError(f"--device gpu: this machine has no NVIDIA GPU; {_elsewhere('a GPU')}")
    if not found.cuda and not found.rocm:
        raise InputError(
            "--device gpu: this machine has an NVIDIA GPU, but JAX is installed without CUDA; "
            f"{_INSTALL.format('cuda13')}"
        )
    if (hidden := _hidden_by(environment)) is not None:
        raise InputError(f"--device gpu: {hidden}={environment[hidden]!r} hides all GPUs from JAX; unset {hidden}")
    platforms = "cuda,cpu" if found.cuda else "rocm,cpu"
    if alone and (why := (obstacle or _gpu_obstacle)({**environment, _PLATFORMS: platforms})):
        raise InputError(f"--device gpu: JAX cannot use the GPU ({why}); check its driver with nvidia-smi")
    set_platforms(environment, platforms)


def unused_gpu(environment: MutableMapping[str, str], *, machine: Callable[[], Machine] | None = None) -> str:
    """Returns a warning if this machine has an NVIDIA GPU that JAX cannot use, because it has no CUDA; otherwise "".

    With the warning, JAX is kept on the CPU, so that neither JAX nor the child processes of this one repeat it. Nothing
    happens if JAX_PLATFORMS names a platform, or if the GPUs are hidden.

    Args:
      environment: os.environ, which the child processes of this one inherit.
      machine: returns what the machine has, by default `this_machine`.
    """
    if environment.get(_PLATFORMS) or _hidden_by(environment) is not None:
        return ""
    found = (machine or this_machine)()
    if not found.nvidia_gpu or found.cuda or found.rocm or (found.tpu and found.libtpu):
        return ""
    set_platforms(environment, "cpu")
    return (
        "warning: this machine has an NVIDIA GPU, but JAX is installed without CUDA and computes on the CPU; "
        f"{_INSTALL.format('cuda13')}, or give --device cpu"
    )


def skip_absent_tpu(environment: MutableMapping[str, str]) -> None:
    """Keeps JAX on the CPU when libtpu is installed and the machine has no TPU.

    libtpu would otherwise print warnings, and end the process when a profiler starts. Nothing changes when
    JAX_PLATFORMS names a platform, or when a JAX plugin for GPUs is installed too.

    Args:
      environment: os.environ, which the child processes of this one inherit.
    """
    if environment.get(_PLATFORMS) or importlib.util.find_spec("libtpu") is None or has_tpu():
        return
    if not any(map(importlib.util.find_spec, [*_CUDA_PLUGINS, *_ROCM_PLUGINS])):
        set_platforms(environment, "cpu")


def set_platforms(environment: MutableMapping[str, str], platforms: str) -> None:
    """Makes JAX use these platforms only, in this process and in its child processes.

    Args:
      environment: os.environ.
      platforms: their names, separated by commas, in the form of JAX_PLATFORMS.
    """
    environment[_PLATFORMS] = platforms
    if jax := sys.modules.get("jax"):  # JAX has already read its environment
        jax.config.update("jax_platforms", platforms)


def _elsewhere(device: str) -> str:
    return f"start the program on a machine with {device}, or leave out --device"


def _hidden_by(environment: Mapping[str, str]) -> str | None:
    """Returns the variable that hides all GPUs, or None if there is none."""
    return next((name for name in _VISIBLE if environment.get(name) in ("", "-1")), None)


def _has_tpu_chips() -> bool:
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def _nvidia_smi_lists_one() -> bool:
    """Returns whether the tool of NVIDIA's driver lists a GPU; False if it is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=_SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.stdout.startswith("GPU ")


def _gpu_obstacle(environment: Mapping[str, str]) -> str:
    """Returns why JAX cannot use a GPU, or "". Another process tries it, because this one may start several others."""
    code = "import jax; print(jax.devices()[0].platform)"
    small = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ANSWER,
            env={**environment, **small},
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {_SECONDS_TO_ANSWER} s"
    if tried.returncode == 0:
        platform = tried.stdout.strip()
        return "" if platform == "gpu" else f"it found a {platform} only"
    return one_line((tried.stderr.strip().splitlines() or ["no message"])[-1])
