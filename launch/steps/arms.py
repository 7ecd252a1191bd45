"""The steps of an arm, which is one system of the comparison."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from crops_jax import artifacts
from crops_jax.program.chain import Step
from launch.steps.arguments import ARMS, PipelineArguments, words_of
from launch.steps.programs import evaluation_step, records_step, training_step, vocabulary_flags
from launch.steps.warm_start import WARM_START, warm_tokenizer


def mining_step(arguments: PipelineArguments, arm: str, split: Path, folder: Path) -> Step:
    """Returns the step that mines the labels of an arm."""
    perspectives, labels = ARMS[arm], folder / "labels"
    chosen = ("--perspectives", ",".join(perspectives)) if perspectives else ()
    return Step(
        name=f"mine {arm}",
        module="data.mine",
        arguments=("--logs", str(split), *chosen, *words_of(arguments.mine_flags), "--output", str(labels)),
        inputs=(split,),
        output=labels,
    )


def trained_in(folder: Path, earlier: Sequence[Path]) -> Path:
    """Returns the folder of the arm whose records and run an arm has: the first with an equal label table, or its own.

    Equal labels and one seed give equal parameters, so a second training would only repeat the first. Before the
    labels are mined, an arm has its own.

    Args:
      folder: the folder of the arm.
      earlier: the folders of the arms before it that have records and a run of their own.
    """
    labels = folder / "labels"
    if not labels.exists():
        return folder
    mined = artifacts.fingerprint(labels)
    equal = (one for one in earlier if (one / "labels").exists() and artifacts.fingerprint(one / "labels") == mined)
    return next(equal, folder)


def arm_steps(arguments: PipelineArguments, arm: str, split: Path, folder: Path, trained: Path) -> Iterator[Step]:
    """Yields the steps of one arm after its mining, from its records to its evaluation.

    Args:
      arguments: the arguments of the pipeline.
      arm: the name of the arm.
      split: SPLIT.
      folder: the folder of the arm.
      trained: the folder of the arm whose records, run and embeddings it has, as `trained_in` returns it.
    """
    run, embeddings = trained / "run", trained / "embeddings"
    shared = "" if trained == folder else f"the labels of {arm} and {trained.name} are equal, so they share one run"
    for step in _training_steps(arguments, arm, split, trained):
        yield dataclasses.replace(step, left_out=shared)
    yield evaluation_step(f"index and evaluate {arm}", arguments, run, split, folder, arm, embeddings=embeddings)


def _training_steps(arguments: PipelineArguments, arm: str, split: Path, folder: Path) -> Iterator[Step]:
    labels, records, run = folder / "labels", folder / "records", folder / "run"
    warm = folder.parent / WARM_START if arguments.warm_start else None
    yield records_step(
        f"write records of {arm}",
        arguments,
        labels,
        split,
        records,
        vocabulary=vocabulary_flags(arguments, learnt=warm_tokenizer(warm) if warm else None),
        flags=words_of(arguments.records_flags),
    )
    yield training_step(f"train {arm}", folder.parent, records, run, start=warm / "run" if warm else None)
    embeddings = folder / "embeddings"
    yield Step(
        name=f"embed {arm}",
        module="launch.embed",
        arguments=("--run", str(run), "--texts", str(split), "--tower", "document", "--output", str(embeddings)),
        inputs=(run, split),
        output=embeddings,
        in_place=True,
    )
