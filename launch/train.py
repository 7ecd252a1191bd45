"""Trains a dual encoder on records; called again with the same RUN it goes on where it was."""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crops_jax import program


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    config: program.ConfigArgument
    """The experiment; every field can be overridden."""
    records: str
    """What data.write_records wrote."""
    output: str
    """The run: config.json, tokenizer, checkpoints, metrics.jsonl, goodput.jsonl, tensorboard."""


def train(arguments: TrainArguments) -> dict[str, Any]:
    """Trains a dual encoder with H-InfoNCE on records of data.write_records.

    Works in place and can be watched while it runs. SIGTERM saves a checkpoint and exits with status 3; the same
    command goes on from the newest checkpoint, whatever stopped it before, and ends as if nothing had. Compiled
    programs are kept in OUTPUT/compilation_cache, or where JAX_COMPILATION_CACHE_DIR says.

    Several processes train one model when all are started with this same command
    (crops_jax.devices.cluster_environment says how they find one another; launch/scripts holds examples) and share the
    file system of RECORDS and OUTPUT. Their number may change whenever the run goes on.
    """
    from crops_jax.devices import processes

    with processes.joined():
        return _train(arguments)


def _train(arguments: TrainArguments) -> dict[str, Any]:
    # Imported here: what stands above says before anything slow what is wrong with the environment.
    from crops_jax import pretrained, training
    from crops_jax.devices import processes
    from crops_jax.runs import folder

    config = pretrained.resolve_config(arguments.config)
    training.check_machine(config)  # before RUN is made: a run keeps the configuration that it was made with
    with folder.open_run(arguments.output, config=config, records=arguments.records, arguments=arguments) as run:
        obstacle = pretrained.export_obstacle(config.encoder, run / folder.TOKENIZER)
        if obstacle and processes.current().is_first:
            print(f"launch.export will refuse this run: {obstacle}", file=sys.stderr, flush=True)
        training.enable_compilation_cache(run)
        outcome = training.train(config, records_path=arguments.records, run=run)
    return {"run": str(Path(arguments.output)), **outcome}


if __name__ == "__main__":
    program.run(train, example="python -m launch.train tiny_cpu --records records --output run")
