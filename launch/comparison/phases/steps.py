"""The steps that mine negatives by BM25, and that embed the documents of a phase whose documents are frozen."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crops_jax.program.chain import Step
from data.records.arguments import WriteRecordsArguments

BM25_FLAGS = ("--top", "100", "--per-query", "20", "--sampling", "random", "--level", "1", "--replace-negatives")
"""20 random documents of the first 100 of BM25 that are no known positives, at level 1. Every loss of the systems that
learn from them tells only positives from negatives."""
_DOCUMENTS_PER_QUERY = ("--documents-per-query", "24")
"""The documents of a query whose texts are written: the mined ones and some positives."""


@dataclass(frozen=True, kw_only=True)
class MiningInputs:
    """The tables and flags with which negatives by BM25 are mined and their records are written."""

    split: Path
    labels: Path
    """The label table of clicks, to which negatives are added."""
    tokenizer: Path
    lengths: tuple[str, ...]
    """The flags of data.write_records for the maximum numbers of tokens."""
    records_flags: tuple[str, ...]
    """The flags of data.write_records that the user gives for every system."""


def dev_fraction(records_flags: tuple[str, ...]) -> float:
    """Returns the share of dev queries that flags of data.write_records ask for."""
    found = WriteRecordsArguments.dev_fraction
    for word, following in itertools.pairwise((*records_flags, "")):
        name, _, value = word.partition("=")
        if name.replace("_", "-") == "--dev-fraction":
            found = float(value or following)
    return found


def lexical_steps(inputs: MiningInputs, folder: Path) -> Iterator[Step]:
    """Yields the steps of negatives that BM25 ranks, in FOLDER/labels and FOLDER/records."""
    labels, records = folder / "labels", folder / "records"
    dev = ("--dev-fraction", f"{dev_fraction(inputs.records_flags):g}")
    yield Step(
        name="mine negatives by BM25",
        module="launch.mine_negatives",
        arguments=("--labels", str(inputs.labels), "--ranked-by", "bm25", "--logs", str(inputs.split))
        + (*BM25_FLAGS, *dev, "--seed", "0", "--output", str(labels)),
        inputs=(inputs.labels, inputs.split),
        output=labels,
    )
    yield Step(
        name="write records of negatives by BM25",
        module="data.write_records",
        arguments=("--labels", str(labels), "--logs", str(inputs.split), "--tokenizer", str(inputs.tokenizer))
        + (*inputs.lengths, *_DOCUMENTS_PER_QUERY, "--all-documents", *inputs.records_flags)
        + ("--output", str(records)),
        inputs=(labels, inputs.split),
        output=records,
    )


def frozen_step(split: Path, folder: Path, *, run: Path) -> Step:
    """Returns the step of the frozen documents of a phase: their vectors by the run before it, in FOLDER/documents."""
    output = folder / "documents"
    return Step(
        name=f"embed documents for {folder.name}",
        module="launch.embed",
        arguments=("--run", str(run), "--texts", str(split), "--tower", "document", "--output", str(output)),
        inputs=(run, split),
        output=output,
        in_place=True,
    )
