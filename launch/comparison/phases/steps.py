"""The steps of one phase: embed with the run of the phase before, mine negatives, write records, and train.

FOLDER/config.py      the configuration of the phase
FOLDER/queries, documents, labels, records
                      what is mined and written with the run of the phase before
FOLDER/run            the run, unless it is that of the last phase
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crops_jax.program.chain import Step
from data.records.arguments import WriteRecordsArguments
from launch.comparison.phases.plan import Negatives

LEVEL = "1"
"""The level of mined negatives. Every loss of these systems tells only positives from negatives."""
_DOCUMENTS_PER_QUERY = ("--documents-per-query", "24")
"""The documents of a query whose texts are written: the mined ones and some positives."""


@dataclass(frozen=True, kw_only=True)
class MiningInputs:
    """The tables and flags with which the phases of every system mine negatives and write records."""

    split: Path
    labels: Path
    """The label table of clicks, to which negatives are added."""
    tokenizer: Path
    lengths: tuple[str, ...]
    """The flags of data.write_records for the maximum numbers of tokens."""
    records_flags: tuple[str, ...]
    """The flags of data.write_records that the user gives for every system."""
    temperature: float
    """The temperature of the losses at their start, by which samplers divide cosines."""

    def mining_flags(self, negatives: Negatives, *, seed: int) -> tuple[str, ...]:
        """Returns the flags of launch.mine_negatives for negatives, without paths."""
        temperature = ("--temperature", f"{self.temperature:g}") if negatives.ranked_by == "previous_run" else ()
        dev = ("--dev-fraction", f"{dev_fraction(self.records_flags):g}")
        return (*negatives.flags, *temperature, "--level", LEVEL, "--replace-negatives", *dev, "--seed", str(seed))

    def writing_flags(self) -> tuple[str, ...]:
        """Returns the flags of data.write_records, without paths."""
        return (*self.lengths, *_DOCUMENTS_PER_QUERY, *self.records_flags)


def dev_fraction(records_flags: tuple[str, ...]) -> float:
    """Returns the share of dev queries that flags of data.write_records ask for."""
    found = WriteRecordsArguments.dev_fraction
    for word, following in itertools.pairwise((*records_flags, "")):
        name, _, value = word.partition("=")
        if name.replace("_", "-") == "--dev-fraction":
            found = float(value or following)
    return found


def lexical_steps(inputs: MiningInputs, negatives: Negatives, folder: Path) -> Iterator[Step]:
    """Yields the steps of negatives that BM25 ranks, in FOLDER/labels and FOLDER/records."""
    labels = folder / "labels"
    yield Step(
        name="mine negatives by BM25",
        module="launch.mine_negatives",
        arguments=("--labels", str(inputs.labels), "--ranked-by", "bm25", "--logs", str(inputs.split))
        + (*inputs.mining_flags(negatives, seed=0), "--output", str(labels)),
        inputs=(inputs.labels, inputs.split),
        output=labels,
    )
    yield _records("write records of negatives by BM25", inputs, labels, folder / "records")


def refresh_steps(inputs: MiningInputs, negatives: Negatives, folder: Path, *, run: Path, seed: int) -> Iterator[Step]:
    """Yields the steps of negatives that a run ranks: embeddings, labels and records in FOLDER."""
    queries, documents, labels = folder / "queries", folder / "documents", folder / "labels"
    yield _embedding(inputs.labels, "query", queries, run=run)
    yield _embedding(inputs.split, "document", documents, run=run)
    yield Step(
        name=f"mine negatives for {folder.name}",
        module="launch.mine_negatives",
        arguments=("--labels", str(inputs.labels), "--query-embeddings", str(queries))
        + ("--document-embeddings", str(documents), *inputs.mining_flags(negatives, seed=seed))
        + ("--output", str(labels)),
        inputs=(inputs.labels, queries, documents),
        output=labels,
    )
    yield _records(f"write records for {folder.name}", inputs, labels, folder / "records")


def frozen_steps(inputs: MiningInputs, folder: Path, *, run: Path) -> Iterator[Step]:
    """Yields the step of the frozen documents of a phase: their vectors by the run before it, in FOLDER/documents."""
    yield _embedding(inputs.split, "document", folder / "documents", run=run)


def _embedding(texts: Path, tower: str, output: Path, *, run: Path) -> Step:
    return Step(
        name=f"embed {output.name} for {output.parent.name}",
        module="launch.embed",
        arguments=("--run", str(run), "--texts", str(texts), "--tower", tower, "--output", str(output)),
        inputs=(run, texts),
        output=output,
        in_place=True,
    )


def _records(name: str, inputs: MiningInputs, labels: Path, output: Path) -> Step:
    return Step(
        name=name,
        module="data.write_records",
        arguments=("--labels", str(labels), "--logs", str(inputs.split), "--tokenizer", str(inputs.tokenizer))
        + (*inputs.writing_flags(), "--output", str(output)),
        inputs=(labels, inputs.split),
        output=output,
    )
