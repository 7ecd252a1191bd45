"""Trains a dual encoder on records. A second call with the same RUN continues from the last checkpoint."""

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
    """The configuration of the experiment; a flag overrides each field."""
    records: str
    """RECORDS, the directory that data.write_records wrote."""
    initial_run: str | None = None
    """A run whose best weights a new RUN starts from. Its architecture must be that of the configuration, and its
    tokenizer that of the records. The temperature starts anew. A RUN that has a checkpoint does not read it again."""
    output: str
    """RUN, the directory for config.json, tokenizer, checkpoints, metrics.jsonl, goodput.jsonl and tensorboard."""


def train(arguments: TrainArguments) -> dict[str, Any]:
    """Trains a dual encoder on the records of data.write_records, with the loss that --loss.name selects.

    The program writes into RUN while it trains; launch.status shows its state. SIGTERM saves a checkpoint and exits
    with status 3. The same command continues from the newest checkpoint, whatever stopped it before, and the result is
    the same as without an interruption. With --training.early-stopping-evaluations, a run can end before its last step
    and is finished then. Compiled programs are kept in RUN/compilation_cache, or in the directory that
    JAX_COMPILATION_CACHE_DIR names.

    Several processes train one model if all are started with the same command and see the same file system at RECORDS
    and RUN (crops_jax.devices.cluster_environment describes how they connect; launch/scripts has examples). Their
    number can change each time the run continues.
    """
    from crops_jax.devices import processes

    with processes.joined():
        return _train(arguments)


def _train(arguments: TrainArguments) -> dict[str, Any]:
    # The imports are here because they are slow: an error in the environment is reported before them.
    from crops_jax import pretrained, training
    from crops_jax.devices import processes
    from crops_jax.runs import folder

    config = pretrained.resolve_config(arguments.config)
    training.check_machine(config)  # before RUN is made, because a run keeps its first configuration
    with folder.open_run(
        arguments.output,
        config=config,
        records=arguments.records,
        arguments=arguments,
        initial_run=arguments.initial_run,
    ) as run:
        obstacle = pretrained.export_obstacle(config.encoder, run / folder.TOKENIZER)
        if obstacle and processes.current().is_first:
            print(f"launch.export will refuse this run: {obstacle}", file=sys.stderr, flush=True)
        training.enable_compilation_cache(run)
        outcome = training.train(config, records_path=arguments.records, run=run, initial_run=arguments.initial_run)
    return {"run": str(Path(arguments.output)), **outcome}


if __name__ == "__main__":
    program.run(train, example="python -m launch.train tiny_cpu --records records --output run")
