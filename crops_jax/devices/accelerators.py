"""Memory and speed of accelerators as their makers state them, by the name that JAX has for a kind of device."""

from typing import NamedTuple


class Accelerator(NamedTuple):
    """One device of JAX: a TPU chip or a GPU.

    memory_bytes: the size of its high-bandwidth memory.
    memory_bandwidth: the bytes per second to and from this memory.
    peak_flops: the floating-point operations per second of dense bfloat16 matrix products.
    """

    memory_bytes: int
    memory_bandwidth: float
    peak_flops: float


_GIB = 1 << 30

# A device is described by the first row whose name is a prefix of the device's kind, in upper or lower case.
_ACCELERATORS: tuple[tuple[str, Accelerator], ...] = (
    ("TPU v4 lite", Accelerator(8 * _GIB, 614e9, 138e12)),
    ("TPU v4", Accelerator(32 * _GIB, 1228e9, 275e12)),
    ("TPU v5 lite", Accelerator(16 * _GIB, 819e9, 197e12)),
    ("TPU v5e", Accelerator(16 * _GIB, 819e9, 197e12)),
    ("TPU v5", Accelerator(95 * _GIB, 2765e9, 459e12)),
    ("TPU v6", Accelerator(32 * _GIB, 1640e9, 918e12)),
    ("NVIDIA A100-SXM4-40GB", Accelerator(40 * _GIB, 1555e9, 312e12)),
    ("NVIDIA A100-PCIE-40GB", Accelerator(40 * _GIB, 1555e9, 312e12)),
    ("NVIDIA A100", Accelerator(80 * _GIB, 1935e9, 312e12)),
    ("NVIDIA H100 PCIe", Accelerator(80 * _GIB, 2000e9, 756e12)),
    ("NVIDIA H100 NVL", Accelerator(94 * _GIB, 3900e9, 835e12)),
    ("NVIDIA H100", Accelerator(80 * _GIB, 3350e9, 989e12)),
    ("NVIDIA H200", Accelerator(141 * _GIB, 4800e9, 989e12)),
    ("NVIDIA GH200", Accelerator(96 * _GIB, 4000e9, 989e12)),
    ("NVIDIA B200", Accelerator(180 * _GIB, 8000e9, 2250e12)),
    ("NVIDIA L40S", Accelerator(48 * _GIB, 864e9, 362e12)),
    ("NVIDIA L4", Accelerator(24 * _GIB, 300e9, 121e12)),
)


def accelerator_of(device_kind: str) -> Accelerator | None:
    """Returns the accelerator of a `jax.Device.device_kind`, or None for a CPU and for an unknown kind."""
    kind = device_kind.lower()
    return next((accelerator for name, accelerator in _ACCELERATORS if kind.startswith(name.lower())), None)
