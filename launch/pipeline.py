"""Runs all steps with one resumable command: hold out, mine, write records, train, embed, index, evaluate, report."""

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.artifacts.lock import LOCK, exclusive
from crops_jax.config import Config
from crops_jax.devices import processes
from crops_jax.errors import InputError
from crops_jax.program.chain import STEPS, Chain, Step
from data.tables import OnBadRows

_PROGRAM = "launch.pipeline"
ARMS: dict[str, tuple[str, ...] | None] = {
    "search_log": ("search_log",),
    "query_level": ("search_log", "query_level"),
    "system_level": ("search_log", "system_level"),
    "knowledge_level": ("search_log", "knowledge_level"),
    "cross_perspective": None,
}
"""The perspectives that each arm mines; None means every perspective whose tables are present."""


@dataclass(frozen=True, kw_only=True)
class PipelineArguments:
    logs: str
    """The directory of log tables in Parquet."""
    output: str
    """WORK, the directory for all outputs. A second call with the same arguments continues the first."""
    from_time: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Hold out the events at this time or later (ISO 8601; UTC if it has no offset)."""
    fraction: float = 0.0
    """The share of the groups to hold out; it is needed with --by group."""
    by: str = ""
    """With "group", whole groups (a topic, a session) are held out instead of a period. With "split", the split of the
    judgements decides."""
    arms: str = "search_log,cross_perspective"
    """The arms, separated by commas. An arm is one system of the comparison: a set of labels, and the encoder that is
    trained on it. The arms are search_log, query_level, system_level, knowledge_level and cross_perspective, which has
    all perspectives."""
    tokenizer: str = ""
    """The folder of a Hugging Face tokenizer. The default is that of --encoder.weights, or else one that is learnt from
    the documents."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to
    WORK/split.quarantine."""
    hold_out_flags: str = ""
    """Further flags of data.hold_out, in one string."""
    discriminator: Literal["lexical", "cross_encoder"] = "lexical"
    """The relevance discriminator (theta), which gives the probability that a document answers a query and so decides
    which documents become positives. With "cross_encoder", one is trained on the part that is not held out, and then
    the hold-out is made again with it."""
    discriminator_flags: str = ""
    """Further flags of launch.train_discriminator, in one string."""
    mine_flags: str = ""
    """Further flags of data.mine for every arm, in one string."""
    records_flags: str = ""
    """Further flags of data.write_records, in one string."""
    evaluate_flags: str = ""
    """Further flags of launch.evaluate, in one string."""
    config: program.ConfigArgument


def run_pipeline(arguments: PipelineArguments) -> dict[str, Any]:
    """Runs all steps from log tables to the report; a second call continues at the first unfinished step.

    Each step is one program of this project. Its command is printed and can be run by hand. The last line of standard
    output has the path of the report and the main figures of each arm (one system of the comparison).
    """
    processes.refuse_several(_PROGRAM)
    arms = _arms(arguments)
    if arguments.discriminator_flags and arguments.discriminator == "lexical":
        raise InputError("--discriminator-flags are of a cross-encoder: give --discriminator cross_encoder too")
    if bool(arguments.from_time) == bool(arguments.by):
        raise InputError("say what to hold out: --from TIME, or --fraction F --by group, or --by split")
    work = Path(arguments.output)
    steps = list(_steps(arguments, arms, work))
    work.mkdir(parents=True, exist_ok=True)
    refusal = f"another process works in {work}; wait until it ends, or stop it"
    # The steps inherit the lock: after a chain was killed, no second chain starts while one of its steps still runs.
    with exclusive(work / LOCK, refusal=refusal, patience_seconds=60, inherited_by_children=True):
        _claim(work, arguments)
        for folder in {step.output.parent for step in steps}:
            artifacts.remove_temporaries(folder)  # of steps that were killed
        chain = Chain(work, total=len(steps))
        outcomes = [chain.run(step) for step in steps]
    set_aside = {name: value for name, value in outcomes[0].items() if name in ("quarantined", "quarantine")}
    return {**outcomes[-1], "work": str(work), **set_aside}


def _steps(arguments: PipelineArguments, arms: list[str], work: Path) -> Iterator[Step]:
    split, discriminator = work / "split", work / "discriminator"
    if arguments.discriminator == "cross_encoder":
        # It must learn only from the training part, and then it decides the test sets: so the split is made twice.
        before = work / "split_for_discriminator"
        yield _hold_out("hold out for the discriminator", arguments, before)
        yield Step(
            name="train the discriminator",
            module="launch.train_discriminator",
            arguments=("--logs", str(before), *_flags(arguments.discriminator_flags), "--output", str(discriminator)),
            inputs=(before,),
            output=discriminator,
            in_place=True,
        )
        yield _hold_out("hold out", arguments, split, discriminator)
    else:
        yield _hold_out("hold out", arguments, split)
    pages: list[Path] = []
    for arm in arms:
        yield from _arm_steps(arguments, arm, split, work / arm)
        pages += [work / arm / name for name in ("labels", "run", "evaluation")]
    weights = arguments.config.encoder.weights
    if weights:
        untrained = work / "untrained"
        yield _evaluation("evaluate the untrained encoder", arguments, Path(weights), split, untrained, "untrained")
        pages.append(untrained / "evaluation")
    report = work / "report.html"
    yield Step(
        name="report",
        module="launch.report",
        arguments=(*map(str, pages), "--output", str(report)),
        inputs=tuple(pages),
        output=report,
    )


def _hold_out(name: str, arguments: PipelineArguments, split: Path, discriminator: Path | None = None) -> Step:
    decided = ("--discriminator", str(discriminator)) if discriminator else ()
    return Step(
        name=name,
        module="data.hold_out",
        arguments=("--logs", arguments.logs, *_split_arguments(arguments), *_bad_rows(arguments), *decided)
        + (*_flags(arguments.hold_out_flags), "--output", str(split)),
        inputs=(Path(arguments.logs), *([discriminator] if discriminator else [])),
        output=split,
    )


def _arm_steps(arguments: PipelineArguments, arm: str, split: Path, folder: Path) -> Iterator[Step]:
    labels, records, run = folder / "labels", folder / "records", folder / "run"
    perspectives = ARMS[arm]
    chosen = ("--perspectives", ",".join(perspectives)) if perspectives else ()
    yield Step(
        name=f"mine {arm}",
        module="data.mine",
        arguments=("--logs", str(split), *chosen, *_flags(arguments.mine_flags), "--output", str(labels)),
        inputs=(split,),
        output=labels,
    )
    yield Step(
        name=f"write records of {arm}",
        module="data.write_records",
        arguments=("--labels", str(labels), "--logs", str(split), *_record_arguments(arguments))
        + ("--output", str(records)),
        inputs=(labels, split),
        output=records,
    )
    yield Step(
        name=f"train {arm}",
        module="launch.train",
        arguments=(str(folder.parent / "config.py"), "--records", str(records), "--output", str(run)),
        inputs=(records, folder.parent / "config.py"),
        output=run,
        in_place=True,
    )
    embeddings = folder / "embeddings"
    yield Step(
        name=f"embed {arm}",
        module="launch.embed",
        arguments=("--run", str(run), "--texts", str(split), "--tower", "document", "--output", str(embeddings)),
        inputs=(run, split),
        output=embeddings,
        in_place=True,
    )
    yield _evaluation(f"index and evaluate {arm}", arguments, run, split, folder, arm, embeddings)


def _evaluation(
    name: str,
    arguments: PipelineArguments,
    run: Path,
    split: Path,
    folder: Path,
    system: str,
    embeddings: Path | None = None,
) -> Step:
    embedded = ("--document-embeddings", str(embeddings)) if embeddings else ()
    return Step(
        name=name,
        module="launch.evaluate",
        arguments=("--run", str(run), "--logs", str(split), *embedded, "--name", system)
        + (*_flags(arguments.evaluate_flags), "--output", str(folder / "evaluation")),
        inputs=(run, split, embeddings) if embeddings else (split,),
        output=folder / "evaluation",
    )


def _split_arguments(arguments: PipelineArguments) -> tuple[str, ...]:
    if arguments.from_time:
        return ("--from", arguments.from_time)
    fraction = ("--fraction", str(arguments.fraction)) if arguments.fraction else ()
    return (*fraction, "--by", arguments.by)


def _bad_rows(arguments: PipelineArguments) -> tuple[str, ...]:
    return () if arguments.on_bad_rows == "fail" else ("--on-bad-rows", arguments.on_bad_rows)


def _record_arguments(arguments: PipelineArguments) -> tuple[str, ...]:
    encoder = arguments.config.encoder
    tokenizer = arguments.tokenizer or encoder.weights
    vocabulary = ("--tokenizer", tokenizer) if tokenizer else ("--vocabulary-size", str(encoder.vocabulary_size))
    lengths = ("--max-tokens", str(encoder.max_document_tokens), "--max-query-tokens", str(encoder.max_query_tokens))
    return (*vocabulary, *lengths, *_flags(arguments.records_flags))


def _flags(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"flags {text!r} cannot be split into words: {error}") from error


def _arms(arguments: PipelineArguments) -> list[str]:
    arms = [arm.strip() for arm in arguments.arms.split(",") if arm.strip()]
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms or len(set(arms)) < len(arms):
        raise InputError(f"--arms {arguments.arms!r}: name some of {', '.join(ARMS)}, each once")
    return arms


def _claim(work: Path, arguments: PipelineArguments) -> None:
    """Writes the manifest and the configuration of WORK. Raises InputError if WORK has steps of others."""
    manifest = artifacts.new_manifest(
        program=_PROGRAM, kind="work", arguments=arguments, inputs={"logs": arguments.logs}
    )
    if (work / artifacts.MANIFEST).exists():
        in_place.check_written_by(work, program=_PROGRAM, kind="work", noun="the work")
    elif foreign := [path.name for path in work.iterdir() if path.name != LOCK]:
        raise InputError(f"{work} holds files that are not this pipeline's ({foreign[0]}); choose another --output")
    if (work / STEPS).exists():
        remedy = "give the same ones to go on, or choose another --output"
        in_place.check_same(work, manifest, remedy=remedy, flags={"from_time": "--from"})
    else:
        artifacts.write_manifest(work, manifest)
    artifacts.write_text(work / "config.py", _as_module(arguments.config))


def _as_module(config: Config) -> str:
    sections = {type(getattr(config, field.name)).__name__ for field in dataclasses.fields(config)}
    names = ", ".join(sorted({"Config"} | sections))
    heading = '"""The resolved configuration of this pipeline."""'
    return f"{heading}\n\nfrom crops_jax.config import {names}\n\nCONFIG = {config!r}\n"


if __name__ == "__main__":
    program.run(
        run_pipeline,
        example="python -m launch.pipeline tiny_cpu --logs logs --from 2026-01-05 --output work",
    )
