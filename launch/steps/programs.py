"""Calls of single programs, which the arms of a comparison and the encoder that they start from share."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from crops_jax.program.chain import Step
from launch.steps.arguments import PipelineArguments, words_of


def hold_out_step(name: str, arguments: PipelineArguments, split: Path, discriminator: Path | None = None) -> Step:
    """Returns the step that divides the logs; a discriminator that is given decides the test sets."""
    decided = ("--discriminator", str(discriminator)) if discriminator else ()
    return Step(
        name=name,
        module="data.hold_out",
        arguments=("--logs", arguments.logs, *_split_arguments(arguments), *_bad_rows(arguments), *decided)
        + (*words_of(arguments.hold_out_flags), "--output", str(split)),
        inputs=(Path(arguments.logs), *([discriminator] if discriminator else [])),
        output=split,
    )


def splitting_steps(arguments: PipelineArguments, folder: Path) -> Iterator[Step]:
    """Yields the steps that divide the logs; the last one writes FOLDER/split.

    A cross-encoder must learn from the training part alone, and then it decides the test sets: so the split is made
    twice, and FOLDER/discriminator is trained in between.
    """
    split, discriminator = folder / "split", folder / "discriminator"
    if arguments.discriminator == "lexical":
        yield hold_out_step("hold out", arguments, split)
        return
    before = folder / "split_for_discriminator"
    yield hold_out_step("hold out for the discriminator", arguments, before)
    yield discriminator_step(before, discriminator, flags=words_of(arguments.discriminator_flags))
    yield hold_out_step("hold out", arguments, split, discriminator)


def discriminator_step(logs: Path, output: Path, *, flags: Sequence[str]) -> Step:
    """Returns the step that trains a cross-encoder as the discriminator on logs without their test part."""
    return Step(
        name="train the discriminator",
        module="launch.train_discriminator",
        arguments=("--logs", str(logs), *flags, "--output", str(output)),
        inputs=(logs,),
        output=output,
        in_place=True,
    )


def vocabulary_flags(arguments: PipelineArguments, *, learnt: Path | None = None) -> tuple[str, ...]:
    """Returns the flags of data.write_records that bring a tokenizer, or that say how large one is learnt.

    `learnt` is the folder of a tokenizer that an earlier step learnt, which is used where the user names none.
    """
    tokenizer = arguments.tokenizer or arguments.config.encoder.weights or (str(learnt) if learnt else "")
    if tokenizer:
        return ("--tokenizer", tokenizer)
    return ("--vocabulary-size", str(arguments.config.encoder.vocabulary_size))


def records_step(
    name: str,
    arguments: PipelineArguments,
    labels: Path,
    logs: Path,
    records: Path,
    *,
    vocabulary: tuple[str, ...],
    flags: tuple[str, ...] = (),
) -> Step:
    """Returns the step that writes records, with a vocabulary as `vocabulary_flags` says and with further flags."""
    encoder = arguments.config.encoder
    lengths = ("--max-tokens", str(encoder.max_document_tokens), "--max-query-tokens", str(encoder.max_query_tokens))
    return Step(
        name=name,
        module="data.write_records",
        arguments=("--labels", str(labels), "--logs", str(logs), *vocabulary, *lengths, *flags)
        + ("--output", str(records)),
        inputs=(labels, logs),
        output=records,
    )


def training_step(
    name: str, work: Path, records: Path, run: Path, *, start: Path | None = None, flags: tuple[str, ...] = ()
) -> Step:
    """Returns the step that trains a run with the configuration of WORK; `start` is the run that it starts from."""
    config = work / "config.py"
    initial = ("--initial-run", str(start)) if start else ()
    return Step(
        name=name,
        module="launch.train",
        arguments=(str(config), "--records", str(records), *initial, *flags, "--output", str(run)),
        inputs=(records, config, *([start] if start else [])),
        output=run,
        in_place=True,
    )


def evaluation_step(
    name: str,
    arguments: PipelineArguments,
    run: Path,
    split: Path,
    folder: Path,
    system: str,
    *,
    embeddings: Path | None = None,
    is_run: bool = True,
) -> Step:
    """Returns the step that evaluates a run, or an encoder that may be a name on a hub, under the name of a system."""
    embedded = ("--document-embeddings", str(embeddings)) if embeddings else ()
    return Step(
        name=name,
        module="launch.evaluate",
        arguments=("--run", str(run), "--logs", str(split), *embedded, "--name", system)
        + (*words_of(arguments.evaluate_flags), "--output", str(folder / "evaluation")),
        inputs=(*([run] if is_run else []), split, *([embeddings] if embeddings else [])),
        output=folder / "evaluation",
    )


def _split_arguments(arguments: PipelineArguments) -> tuple[str, ...]:
    if arguments.from_time:
        return ("--from", arguments.from_time)
    fraction = ("--fraction", str(arguments.fraction)) if arguments.fraction else ()
    return (*fraction, "--by", arguments.by)


def _bad_rows(arguments: PipelineArguments) -> tuple[str, ...]:
    return () if arguments.on_bad_rows == "fail" else ("--on-bad-rows", arguments.on_bad_rows)
