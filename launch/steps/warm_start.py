"""The steps of the encoder that every arm starts from, which is trained on the catalogue alone."""

from collections.abc import Iterator
from pathlib import Path

from crops_jax.program.chain import Step
from launch.steps.arguments import PipelineArguments, words_of
from launch.steps.programs import records_step, training_step, vocabulary_flags

WARM_START = "warm_start"
"""The folder of WORK for this encoder, and its name in the report."""


def warm_tokenizer(folder: Path) -> Path:
    """Returns the folder of the tokenizer of this encoder, which the records of every arm take."""
    return folder / "records" / "tokenizer"


def warm_start_steps(arguments: PipelineArguments, split: Path, folder: Path) -> Iterator[Step]:
    """Yields the steps of the encoder that every arm starts from. They read nothing but documents."""
    pairs, labels, records, run = (folder / name for name in ("pairs", "labels", "records", "run"))
    until = ("--until", arguments.from_time) if arguments.from_time else ()
    yield Step(
        name="make pairs of the documents",
        module="data.pretraining_pairs",
        arguments=("--logs", str(split), *until, "--output", str(pairs)),
        inputs=(split,),
        output=pairs,
    )
    yield Step(
        name="label the pairs",
        module="data.mine",
        arguments=("--logs", str(pairs), "--judgements-as-labels", "--grade-levels", "1=4", "--output", str(labels)),
        inputs=(pairs,),
        output=labels,
    )
    # The documents of the pairs lack their titles, whose words the vocabulary must have.
    learnt_from = () if arguments.tokenizer else ("--vocabulary-from", str(split))
    vocabulary = (*learnt_from, *vocabulary_flags(arguments))
    yield records_step("write records of the pairs", arguments, labels, pairs, records, vocabulary=vocabulary)
    further = words_of(arguments.warm_start_flags)
    yield training_step("train the warm start", folder.parent, records, run, flags=further)
