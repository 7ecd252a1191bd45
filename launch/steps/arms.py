"""The steps of an arm, which is one system of the comparison."""

from collections.abc import Iterator
from pathlib import Path

from crops_jax.program.chain import Step
from launch.steps.arguments import ARMS, PipelineArguments, words_of
from launch.steps.programs import evaluation_step, records_step, training_step, vocabulary_flags
from launch.steps.warm_start import WARM_START, warm_tokenizer


def arm_steps(arguments: PipelineArguments, arm: str, split: Path, folder: Path) -> Iterator[Step]:
    """Yields the steps of one arm, from its labels to its evaluation."""
    labels, records, run = folder / "labels", folder / "records", folder / "run"
    perspectives = ARMS[arm]
    chosen = ("--perspectives", ",".join(perspectives)) if perspectives else ()
    yield Step(
        name=f"mine {arm}",
        module="data.mine",
        arguments=("--logs", str(split), *chosen, *words_of(arguments.mine_flags), "--output", str(labels)),
        inputs=(split,),
        output=labels,
    )
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
    yield evaluation_step(f"index and evaluate {arm}", arguments, run, split, folder, arm, embeddings=embeddings)
