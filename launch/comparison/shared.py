"""The steps that cells share, each made once: the world, the hold-out with theta, labels and records of each recipe.

TABLE/shared/logs                 the generated world, unless logs were given
TABLE/shared/split                the training part and the test sets, with the discriminator
TABLE/shared/labels/RECIPE        the label table of a recipe
TABLE/shared/labels.html          the page of data.report on the labels of all perspectives
TABLE/shared/records/RECIPE       its records; equal label tables share them, and all records share one tokenizer
TABLE/shared/scored_records/RECIPE  the records with the discriminator's scores, for the systems that distil them
TABLE/shared/document_records/RECIPE  the records with all documents, for the systems whose trainer mines negatives
TABLE/shared/bm25_negatives       labels and records with negatives by BM25, for the systems that learn from them
TABLE/shared/warm_start/TOWER     the encoder that every system of these towers starts from, with --warm-start catalogue
TABLE/shared/bm25.npz             what BM25 retrieves for the test queries
"""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crops_jax import artifacts
from crops_jax.config import Config
from crops_jax.config.module import as_module
from crops_jax.program.chain import Chain, Step
from data.mining.relevance.theta import FOLDER as DISCRIMINATOR
from data.mining.relevance.training_pairs import declared_relevant_grade
from data.tables.truth import has_truth
from launch.comparison.arguments import Budget, CompareArguments
from launch.comparison.phases.steps import MiningInputs, lexical_steps
from launch.comparison.systems import LabelRecipe, System, tower_of
from launch.steps.arguments import PipelineArguments, words_of
from launch.steps.programs import splitting_steps
from launch.steps.warm_start import WARM_START, warm_start_steps, warm_tokenizer

SHARED = "shared"
ALL_LABELS = LabelRecipe(perspectives=None)
"""The recipe of CroPS, on whose labels data.report makes its figures."""
BM25_NEGATIVES = "bm25_negatives"
SCORED_RECORDS = "scored_records"
DOCUMENT_RECORDS = "document_records"
TOKENIZER_RECIPE = LabelRecipe()
"""The recipe whose records learn the vocabulary of all records; the vocabulary depends on the documents alone."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The inputs of the cells, all of them made once."""

    logs: Path
    split: Path
    labels: Mapping[LabelRecipe, Path]
    records: Mapping[LabelRecipe, Path]
    lexical_records: Mapping[LabelRecipe, Path] = field(default_factory=dict)
    """The records with negatives by BM25, of the recipes of systems that learn from them."""
    document_records: Mapping[LabelRecipe, Path] = field(default_factory=dict)
    """The records with all documents, of the recipes of systems whose trainer mines negatives."""
    left_out: Mapping[LabelRecipe, str]
    """The recipes that these logs do not allow, with the reason."""
    bm25_results: Path
    evaluate_flags: tuple[str, ...]
    """The flags of launch.evaluate that the logs declare: the minimum grade of a relevant judgement."""
    labels_report: Mapping[str, Any]
    """The outcome of data.report for the labels of all perspectives; empty if no system needs them."""
    initial_runs: Mapping[str, Path]
    """The runs that the systems of an architecture start from; empty without a warm start."""
    scored_records: Mapping[LabelRecipe, Path] = field(default_factory=dict)
    """The records with the scores of the discriminator, of the recipes of systems that distil them."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """The systems that cannot be measured on this machine or with these arguments, with the reason."""

    def records_of(self, system: System) -> Path:
        """Returns the records that a system learns from. Raises KeyError if the logs do not allow its labels."""
        records = self.records
        if system.scored:
            records = self.scored_records
        elif system.lexical_negatives:
            records = self.lexical_records
        elif system.refreshes is not None:
            records = self.document_records
        return records[system.labels]


def make_shared(
    table: Path,
    arguments: CompareArguments,
    systems: Sequence[System],
    *,
    budget: Budget,
    configs: Mapping[str, Config],
    compilation_cache: Path,
) -> Shared:
    """Runs the shared steps that are not done, and returns what they made."""
    folder = table / SHARED
    folder.mkdir(exist_ok=True)
    recipes = list(dict.fromkeys([TOKENIZER_RECIPE, *(system.labels for system in systems)]))
    splitting = 3 if arguments.discriminator == "cross_encoder" else 1
    lexical = list(dict.fromkeys(system.labels for system in systems if system.lexical_negatives))
    refreshed = list(dict.fromkeys(system.labels for system in systems if _needs_document_records(system)))
    scored = list(dict.fromkeys(system.labels for system in systems if system.scored))
    total = (0 if arguments.logs else 1) + splitting + 2 * (len(recipes) + len(lexical)) + (ALL_LABELS in recipes)
    total += len(scored) + len(refreshed)
    chain = Chain(folder, total=total, compilation_cache=compilation_cache)
    logs, from_time = Path(arguments.logs), arguments.from_time
    if not arguments.logs:
        logs = folder / "logs"
        from_time = chain.run(_simulate(budget, logs))["test_from"]
    initial_runs: dict[str, Path] = {}
    if budget.warm_start:
        towers = {tower_of(architecture) for system in systems for architecture in system.architectures}
        initial_runs = _warm_starts(budget, towers, configs, logs, folder, from_time, compilation_cache)
    similarity = initial_runs.get("transformer")
    splitting = _splitting(arguments, logs, from_time, folder, similarity, configs["transformer"])
    for step in splitting:
        chain.run(step)
    split = splitting[-1].output
    labels, left_out = {}, {}
    for recipe in recipes:
        labels[recipe] = folder / "labels" / recipe.name
        outcome = chain.run(_mine(arguments, recipe, split, labels[recipe], similarity))
        if recipe.perspectives is not None and outcome["skipped"]:
            left_out[recipe] = "; ".join(f"{name}: {why}" for name, why in outcome["skipped"].items())
    kept = {recipe: path for recipe, path in labels.items() if recipe not in left_out}
    learnt = warm_tokenizer(_warm_folder(folder, "transformer")) if budget.warm_start else None
    reported = chain.run(report_step(labels[ALL_LABELS], split, folder)) if ALL_LABELS in kept else {}
    records = _write_records(chain, arguments, kept, split, folder, configs, learnt)

    def further_records(kind: str, recipes: Sequence[LabelRecipe], *flags: str) -> dict[LabelRecipe, Path]:
        """Writes records of some recipes with further flags in TABLE/shared/KIND."""
        return {
            recipe: _further_records(chain, arguments, kept[recipe], split, folder / kind / recipe.name, configs, flags)
            for recipe in recipes
            if recipe in kept
        }

    return Shared(
        logs=logs,
        split=split,
        labels=kept,
        records=records,
        lexical_records=_lexical_records(chain, arguments, lexical, kept, split, folder, configs),
        document_records=further_records(DOCUMENT_RECORDS, refreshed, "--all-documents"),
        left_out=left_out,
        bm25_results=folder / "bm25.npz",
        evaluate_flags=_declared_grade(arguments, logs),
        labels_report=reported,
        initial_runs=initial_runs,
        scored_records=further_records(SCORED_RECORDS, scored, "--discriminator", str(split / DISCRIMINATOR)),
    )


def _declared_grade(arguments: CompareArguments, logs: Path) -> tuple[str, ...]:
    grade = declared_relevant_grade(logs)
    return () if grade is None or "--relevant-grade" in arguments.evaluate_flags else ("--relevant-grade", f"{grade:g}")


def _simulate(budget: Budget, logs: Path) -> Step:
    return Step(
        name="simulate the world",
        module="data.simulate",
        arguments=(*words_of(budget.world), "--output", str(logs)),
        inputs=(),
        output=logs,
    )


def _splitting(
    arguments: CompareArguments, logs: Path, from_time: str, folder: Path, similarity: Path | None, config: Config
) -> list[Step]:
    """Returns the steps that make the split. In a generated world the truth decides what a reformulation is."""
    tested = ("--reformulations-by", "truth") if has_truth(logs) else _similarity_flags(similarity)
    as_pipeline = PipelineArguments(
        logs=str(logs),
        output=str(folder),
        from_time=from_time,
        hold_out_flags=shlex.join(tested),
        discriminator=arguments.discriminator,
        discriminator_flags=arguments.discriminator_flags,
        config=config,
    )
    return list(splitting_steps(as_pipeline, folder))


def _mine(arguments: CompareArguments, recipe: LabelRecipe, split: Path, labels: Path, similarity: Path | None) -> Step:
    return Step(
        name=f"mine {recipe.name}",
        module="data.mine",
        arguments=("--logs", str(split), *recipe.flags, *_similarity_flags(similarity))
        + (*words_of(arguments.mine_flags), "--output", str(labels)),
        inputs=(split, similarity) if similarity else (split,),
        output=labels,
    )


def _similarity_flags(encoder: Path | None) -> tuple[str, ...]:
    return ("--similarity-encoder", str(encoder)) if encoder else ()


def report_step(labels: Path, split: Path, folder: Path) -> Step:
    page = folder / "labels.html"
    return Step(
        name="report on the labels",
        module="data.report",
        arguments=("--labels", str(labels), "--logs", str(split), "--output", str(page)),
        inputs=(labels, split),
        output=page,
    )


def _write_records(
    chain: Chain,
    arguments: CompareArguments,
    labels: Mapping[LabelRecipe, Path],
    split: Path,
    folder: Path,
    configs: Mapping[str, Config],
    learnt: Path | None,
) -> dict[LabelRecipe, Path]:
    """Writes the records of each distinct label table, with the tokenizer in the folder `learnt` if there is one."""
    encoders, lengths = [config.encoder for config in configs.values()], _lengths(configs)
    brought = configs["transformer"].encoder.weights or (str(learnt) if learnt else "")
    smallest = min(encoder.vocabulary_size for encoder in encoders)
    tokenizer = ("--tokenizer", brought) if brought else ("--vocabulary-size", str(smallest))
    of_labels: dict[str, Path] = {}
    records: dict[LabelRecipe, Path] = {}
    for recipe, path in labels.items():
        output = of_labels.setdefault(artifacts.fingerprint(path), folder / "records" / recipe.name)
        records[recipe] = output
        if output.name != recipe.name:
            continue
        words = (*tokenizer, *lengths)
        step = _records_step(f"write records of {recipe.name}", arguments, path, split, output, words=words)
        chain.run(step)
        if not brought:
            brought = str(output / "tokenizer")
            tokenizer = ("--tokenizer", brought)
    return records


def _further_records(
    chain: Chain,
    arguments: CompareArguments,
    labels: Path,
    split: Path,
    output: Path,
    configs: Mapping[str, Config],
    flags: tuple[str, ...],
) -> Path:
    """Writes records of a label table with further flags, and returns them.

    They have a folder of their own, so that the records of the other systems stay as they are.
    """
    words = (*flags, "--tokenizer", str(_tokenizer(output.parents[1])), *_lengths(configs))
    name = f"write {output.parent.name.replace('_', ' ')} of {output.name}"
    chain.run(_records_step(name, arguments, labels, split, output, words=words))
    return output


def _records_step(
    name: str, arguments: CompareArguments, labels: Path, split: Path, output: Path, *, words: tuple[str, ...]
) -> Step:
    """Returns the step that writes the records of a label table; `words` are its flags before those of the user."""
    return Step(
        name=name,
        module="data.write_records",
        arguments=("--labels", str(labels), "--logs", str(split), *words)
        + (*words_of(arguments.records_flags), "--output", str(output)),
        inputs=(labels, split),
        output=output,
    )


def _lexical_records(
    chain: Chain,
    arguments: CompareArguments,
    recipes: Sequence[LabelRecipe],
    labels: Mapping[LabelRecipe, Path],
    split: Path,
    folder: Path,
    configs: Mapping[str, Config],
) -> dict[LabelRecipe, Path]:
    """Mines negatives by BM25 for each label table that a system needs them for, and writes their records."""
    records = {}
    for recipe in recipes:
        if recipe in labels:
            inputs = MiningInputs(
                split=split,
                labels=labels[recipe],
                tokenizer=_tokenizer(folder),
                lengths=_lengths(configs),
                records_flags=words_of(arguments.records_flags),
            )
            output = folder / BM25_NEGATIVES / recipe.name
            output.mkdir(parents=True, exist_ok=True)
            for step in lexical_steps(inputs, output):
                chain.run(step)
            records[recipe] = output / "records"
    return records


def _needs_document_records(system: System) -> bool:
    own = system.refreshes is not None and not system.lexical_negatives
    return own or any(phase.refreshes is not None for phase in system.phases)


def _lengths(configs: Mapping[str, Config]) -> tuple[str, ...]:
    encoders = [config.encoder for config in configs.values()]
    return (
        *("--max-tokens", str(max(encoder.max_document_tokens for encoder in encoders))),
        *("--max-query-tokens", str(max(encoder.max_query_tokens for encoder in encoders))),
    )


def _tokenizer(folder: Path) -> Path:
    return folder / "records" / TOKENIZER_RECIPE.name / "tokenizer"


def _warm_starts(
    budget: Budget,
    towers: Collection[str],
    configs: Mapping[str, Config],
    logs: Path,
    folder: Path,
    from_time: str,
    compilation_cache: Path,
) -> dict[str, Path]:
    """Trains an encoder of each of the towers on the catalogue as launch.pipeline does, and returns the runs.

    The transformer comes first, also for a comparison without it: its records learn the tokenizer of all records, and
    it gives the similarity of two queries.
    """
    runs: dict[str, Path] = {}
    tokenizer = ""
    for tower in ("transformer", *sorted({*towers} - {"transformer"})):
        work = folder / WARM_START / tower
        work.mkdir(parents=True, exist_ok=True)
        heading = f"The configuration of the encoder that every system of these towers starts from ({tower})."
        artifacts.write_text(work / "config.py", as_module(configs[tower], heading=heading))
        as_pipeline = PipelineArguments(
            logs=str(logs),
            output=str(work),
            from_time=from_time,
            tokenizer=tokenizer,
            warm_start=True,
            warm_start_flags=budget.warm_start_flags,
            config=configs[tower],
        )
        steps = list(warm_start_steps(as_pipeline, logs, _warm_folder(folder, tower)))
        chain = Chain(work, total=len(steps), compilation_cache=compilation_cache)
        for step in steps:
            chain.run(step)
        runs[tower] = steps[-1].output
        tokenizer = str(warm_tokenizer(_warm_folder(folder, tower)))
    return runs


def _warm_folder(folder: Path, tower: str) -> Path:
    return folder / WARM_START / tower / "encoder"
