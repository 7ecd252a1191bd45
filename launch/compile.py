"""Compiles the train step for a TPU slice, or for several slices, that are not attached."""

import time
from dataclasses import dataclass
from typing import Any

from crops_jax import program
from crops_jax.errors import InputError
from crops_jax.program.progress import say


@dataclass(frozen=True, kw_only=True)
class CompileArguments:
    config: program.ConfigArgument
    """The configuration of the experiment; a flag overrides each field."""
    topology: str
    """The TPU slice, such as v5e:16x16."""
    slices: int = 1
    """The number of such slices, joined by the data-centre network. The mesh splits only data between them."""
    query_tokens: int = 0
    """The average number of tokens of a query, from which the number of packed rows follows. 0 means
    encoder.max_query_tokens."""
    document_tokens: int = 0
    """The average number of tokens of a document. 0 means encoder.max_document_tokens."""


def compile(arguments: CompileArguments) -> dict[str, Any]:
    """Compiles the train step for a TPU slice that is not attached, and prints what it needs of each chip.

    The program prints the memory, the FLOPs and the compiler's estimate of the time of a step, each per chip. It exits
    with status 4 if the step does not fit the memory of a chip. All sizes come from the configuration: neither weights
    nor tokenizer nor network is needed (encoder.weights is not opened). The number of rows of a batch is computed for
    texts of --query-tokens and --document-tokens, with at most a tenth of padding. Without these flags every text has
    the maximum length.
    """
    from crops_jax.devices.tpu_topology import slice_devices

    devices = slice_devices(arguments.topology, slices=arguments.slices)
    from crops_jax.training.compilation import TextLengths, compile_step

    limits = arguments.config.encoder
    lengths = TextLengths(
        arguments.query_tokens or limits.max_query_tokens, arguments.document_tokens or limits.max_document_tokens
    )
    if not (0 < lengths.query <= limits.max_query_tokens and 0 < lengths.document <= limits.max_document_tokens):
        raise InputError(
            f"--query-tokens {lengths.query} and --document-tokens {lengths.document} must lie in [1, "
            f"{limits.max_query_tokens}] and [1, {limits.max_document_tokens}], the limits of the configuration"
        )
    say(f"compiling for {len(devices)} x {devices[0].device_kind}; this takes up to minutes")
    started = time.monotonic()
    sizes = compile_step(arguments.config, lengths, devices=devices)
    say(_table(sizes))
    return {
        "topology": arguments.topology,
        "slices": arguments.slices,
        **sizes,
        "compilation_seconds": round(time.monotonic() - started, 1),
    }


def _table(sizes: dict[str, Any]) -> str:
    """Returns the results of compile_step as text, one line for each, with sizes in GiB."""
    lines = []
    for name, value in sizes.items():
        if name.endswith("_bytes") and value is not None:
            name, value = f"{name.removesuffix('_bytes')} GiB", f"{value / 2**30:.3f}"
        elif isinstance(value, float):
            value = f"{value:.4g}"
        lines.append(f"{name.replace('_', ' '):26} {'-' if value is None else value}")
    return "\n".join(lines)


if __name__ == "__main__":
    program.run(
        compile,
        example="python -m launch.compile qwen2_5_0_5b --topology v5e:16x16",
        table=False,
    )
