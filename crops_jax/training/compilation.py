"""Compiles the train step for devices that need not be attached, and reports its memory, FLOPs and estimated time."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from crops_jax.config import Config
from crops_jax.devices import sharding
from crops_jax.devices.accelerators import Accelerator, accelerator_of
from crops_jax.errors import NamedFailure, one_line
from crops_jax.input_pipeline import Batch
from crops_jax.models.dual_encoder import abstract_dual_encoder
from crops_jax.text.packing import PackedTexts, assign_rows, packed_row_width, row_counts
from crops_jax.training.flops import step_flops
from crops_jax.training.state import abstract_state
from crops_jax.training.step import make_train_step

# The share of padding in packed texts of mixed lengths.
_PADDING = 0.1
_STEPS = 100_000
"""The length of the run: a long one, which has several numbers of rows. The learning rate is defined by it too."""
_GIB = 1 << 30


class TextLengths(NamedTuple):
    """The mean numbers of tokens of a query and of a document."""

    query: int
    document: int


def compile_step(config: Config, lengths: TextLengths, *, devices: Sequence[Any]) -> dict[str, Any]:
    """Compiles the train step over a mesh of devices. It creates no array.

    Returns a dictionary whose bytes, FLOPs and seconds are those of one device and one step:
      devices, device_kind, mesh, queries, rows (of all groups), row_tokens.
      argument_bytes: the size of the state and the batch. output_bytes: the size of the results, of which alias_bytes
        reuse the memory of arguments. temporary_bytes: the size of the temporary arrays.
      needed_bytes: the sum of these sizes and the code, alias_bytes counted once. memory_bytes: the device's memory.
      compiler_flops, compiler_bytes: the compiler's counts of operations and of traffic with the device's memory. It
        counts the body of a loop once, so the counts of micro-batches and of the streaming loss are too low.
      estimated_seconds: the time of the step. `estimate` names its origin: "compiler", or "roofline" where the compiler
        returns no time: the longer of the times that these counts take at the device's peak and bandwidth, without any
        wait for other devices.
      model_flops: see crops_jax.training.flops. model_flops_utilization: their share of the peak in estimated_seconds.

    Raises:
      InputError: when the mesh or the batch does not fit the devices.
      NamedFailure: when the step does not fit their memory.
    """
    mesh = sharding.make_mesh(config.mesh, devices=devices)
    sharding.check_batch(config.data.queries_per_batch, mesh, flag="--data.queries-per-batch")
    model = abstract_dual_encoder(config)
    batch = abstract_batch(config, lengths, mesh=mesh)
    step: Any = make_train_step(model, config, steps=_STEPS, mesh=mesh)
    kind = mesh.devices.flat[0].device_kind
    compiled = _compiled(step.lower(abstract_state(model, config, steps=_STEPS, mesh=mesh), batch), kind)
    accelerator = accelerator_of(kind)
    memory = compiled.memory_analysis()
    needed = _needed_bytes(memory)
    if accelerator:
        check_memory(needed, accelerator, kind)
    cost = compiled.cost_analysis()
    flops = _model_flops(config, lengths) / mesh.devices.size
    seconds, estimate = _seconds(cost, accelerator)
    return {
        "devices": mesh.devices.size,
        "device_kind": kind,
        "mesh": dict(mesh.shape),
        "queries": config.data.queries_per_batch,
        "rows": sum(texts.tokens.shape[0] * texts.tokens.shape[1] for texts in batch.texts),
        "row_tokens": batch.texts[0].tokens.shape[2],
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "needed_bytes": needed,
        "memory_bytes": accelerator and accelerator.memory_bytes,
        "compiler_flops": float(cost.get("flops", 0.0)),
        "compiler_bytes": float(cost.get("bytes accessed", 0.0)),
        "estimated_seconds": seconds,
        "estimate": estimate,
        "model_flops": flops,
        "model_flops_utilization": flops / (seconds * accelerator.peak_flops) if accelerator and seconds else None,
    }


def _compiled(lowered: Any, kind: str) -> Any:
    """Returns the compiled step. Raises NamedFailure when the compiler reports that it does not fit the device."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise NamedFailure(f"the train step does not fit a {kind}: {_memory_message(error)}; {_REMEDY}") from error


def _needed_bytes(memory: Any) -> int:
    """Returns the memory that a compiled program needs on a device; outputs that reuse arguments count once."""
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )


def check_memory(needed_bytes: int, accelerator: Accelerator, kind: str) -> None:
    """Raises NamedFailure, which names the flags to change, when a device of this kind has less memory."""
    if needed_bytes > accelerator.memory_bytes:
        raise NamedFailure(
            f"the train step does not fit a {kind}: it needs {needed_bytes / _GIB:.2f} GiB, of "
            f"{accelerator.memory_bytes / _GIB:.0f} GiB; {_REMEDY}"
        )


def abstract_batch(config: Config, lengths: TextLengths, *, mesh: Mesh) -> Batch:
    """Returns the shapes and shardings of a global batch, as the trainer would choose them for texts of these lengths.

    The number of rows of a group is the smaller of two numbers: the rows that its texts need when each has exactly its
    length, and the rows that hold their tokens with a tenth of padding, as texts of mixed lengths do. It is then
    rounded as in `packing.row_counts` for a long run. Each query is assumed to have data.labels_per_query labelled
    documents, the number that the loss looks up.
    """
    groups, data, encoder = sharding.num_groups(mesh), config.data, config.encoder
    queries, documents = data.queries_per_batch, data.queries_per_batch * data.documents_per_query
    row_tokens = data.row_tokens or packed_row_width(encoder.max_query_tokens, encoder.max_document_tokens)

    def array(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(mesh))

    def packed(*texts: tuple[int, int]) -> PackedTexts:
        token_counts = np.repeat([length for _, length in texts], [count // groups for count, _ in texts])
        rows = min(
            assign_rows(token_counts, row_tokens=row_tokens).count,
            int(np.ceil(token_counts.sum() / ((1 - _PADDING) * row_tokens))),
        )
        counts = row_counts([rows], texts=len(token_counts), steps=_STEPS, multiple=config.training.micro_batches)
        chosen = next(count for count in counts if count >= rows)
        return PackedTexts(
            array(groups, chosen, row_tokens), array(groups, chosen, row_tokens), array(groups, len(token_counts))
        )

    scored = config.loss.distillation != "none"
    both = (queries, lengths.query), (documents, lengths.document)
    return Batch(
        texts=(packed(*both),) if encoder.shared_towers else tuple(packed(texts) for texts in both),
        query_tokens=array(queries, encoder.max_query_tokens),
        document_ids=array(documents, 2),
        labelled_ids=array(queries, data.labels_per_query, 2),
        labelled_levels=array(queries, data.labels_per_query),
        labelled_scores=array(queries, data.labels_per_query, dtype=jnp.float32) if scored else None,
    )


_REMEDY = (
    "a larger --mesh.fsdp splits parameters and moments; a larger --training.micro-batches, --encoder.remat or a "
    "smaller --data.queries-per-batch keeps fewer states of the layers in memory; or use more chips"
)


def _model_flops(config: Config, lengths: TextLengths) -> float:
    queries = config.data.queries_per_batch
    texts = (queries, lengths.query), (queries * config.data.documents_per_query, lengths.document)
    return step_flops(
        config,
        tokens=sum(count * length for count, length in texts),
        causal_pairs=sum(count * length * (length + 1) / 2 for count, length in texts),
    )


def _seconds(cost: Mapping[str, float], accelerator: Accelerator | None) -> tuple[float | None, str | None]:
    # The value is a sum over operations. Operations that the compiler cannot estimate count as negative seconds.
    if (seconds := float(cost.get("optimal_seconds", 0.0))) > 0:
        return seconds, "compiler"
    if accelerator is None:
        return None, None
    work, traffic = (float(cost.get(name, 0.0)) for name in ("flops", "bytes accessed"))
    return max(work / accelerator.peak_flops, traffic / accelerator.memory_bandwidth), "roofline"


def _memory_message(error: Exception) -> str:
    """Returns what the compiler reports about memory, without its codes and further lines."""
    sentence = re.search("Ran out of memory.*", str(error))
    return one_line(sentence[0] if sentence else error, limit=250).rstrip(". ")
