"""Writes the encoder of a run as a folder that sentence-transformers loads without conversion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crops_jax import artifacts, pretrained, program
from crops_jax.devices import processes
from crops_jax.runs.encoder import open_encoder
from crops_jax.storage import InputPath, OutputPath


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    run: InputPath
    """A run (its best checkpoint is exported), or the folder or the Hugging Face hub name of an encoder."""
    output: OutputPath
    """The new folder. It has one Transformer for shared towers, and a Router with query and document routes for two."""
    overwrite: bool = False
    """Replaces the output if it exists and a program of this project wrote it."""


def export(arguments: ExportArguments) -> dict[str, Any]:
    """Exports an encoder as config.json, safetensors, tokenizer, and the modules of sentence-transformers."""
    processes.refuse_several("launch.export")
    run = arguments.run if Path(arguments.run).exists() else None
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs={"run": run})
    encoder = open_encoder(arguments.run)
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="launch.export",
        kind="encoder",
        arguments=arguments,
        inputs={"run": run} if run else {},
        encoder=encoder.fingerprint,
    ) as out:
        written = pretrained.export(encoder, out)
    return {"output": arguments.output, **written}


if __name__ == "__main__":
    program.run(export, example="python -m launch.export --run run --output folder", uses_devices=True)
