"""The checks of what a pipeline needs later, before its first step: encoder, tokenizer, logs and disk space."""

import shutil
from pathlib import Path

from crops_jax.errors import InputError, NamedFailure
from crops_jax.program import say
from crops_jax.text import tokenizer
from launch.steps.arguments import PipelineArguments

_MEBIBYTE = 1 << 20


def check_start(arguments: PipelineArguments) -> None:
    """Checks what a later step would refuse after hours, and says when the arms start from random weights.

    Raises:
      InputError: the logs, the time of --from, the folder of --encoder.weights or the tokenizer cannot be used, or the
        weights contradict the rest of the configuration.
      NamedFailure: the disk of WORK has less free space than the log tables take, of which the split is a copy.
    """
    logs = Path(arguments.logs)
    if not logs.is_dir():
        raise InputError(f"--logs {logs}: no such directory; give the directory of the log tables")
    if arguments.from_time:
        from data.perspectives.log_events import parse_time  # here, because it loads Ibis

        parse_time(arguments.from_time, argument="--from")
    if arguments.config.encoder.weights:
        from crops_jax.pretrained import resolve_config

        resolve_config(arguments.config)
    if arguments.tokenizer:
        tokenizer.load(arguments.tokenizer)
    work = Path(arguments.output)
    if not work.exists():  # a later call continues with what is there already
        _check_space(logs, work)
        if not (arguments.config.encoder.weights or arguments.warm_start):
            say(
                "every arm starts from random weights; --encoder.weights names a pretrained encoder, and --warm-start "
                "trains one on the catalogue first"
            )


def _check_space(logs: Path, work: Path) -> None:
    needed = sum(file.stat().st_size for file in logs.rglob("*.parquet"))
    place = next(folder for folder in work.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise NamedFailure(
            f"{place}: {free / _MEBIBYTE:,.0f} MiB are free, and the split of {logs} alone takes about "
            f"{needed / _MEBIBYTE:,.0f} MiB; free some space, or choose an --output on another disk"
        )
