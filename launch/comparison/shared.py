"""The steps that cells share, each made once: the world, the hold-out with theta, labels and records of each recipe.

TABLE/shared/logs                 the generated world, unless logs were given
TABLE/shared/split                the training part and the test sets, with the discriminator
TABLE/shared/labels/RECIPE        the label table of a recipe
TABLE/shared/records/RECIPE       its records; equal label tables share them, and all records share one tokenizer
TABLE/shared/warm_start/TOWER     the encoder that every system of these towers starts from, with --warm-start
TABLE/shared/bm25.npz             what BM25 retrieves for the test queries
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crops_jax import artifacts
from crops_jax.config import Config
from crops_jax.config.module import as_module
from crops_jax.program.chain import Chain, Step
from data.mining.relevance.training_pairs import declared_relevant_grade
from launch.comparison.arguments import Budget, CompareArguments
from launch.comparison.systems import LabelRecipe, System
from launch.steps.arguments import PipelineArguments, words_of
from launch.steps.warm_start import WARM_START, warm_start_steps

SHARED = "shared"
TOKENIZER_RECIPE = LabelRecipe()
"""The recipe whose records learn the vocabulary of all records; the vocabulary depends on the documents alone."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The inputs of the cells, all of them made once."""

    logs: Path
    split: Path
    records: Mapping[LabelRecipe, Path]
    left_out: Mapping[LabelRecipe, str]
    """The recipes that these logs do not allow, with the reason."""
    bm25_results: Path
    evaluate_flags: tuple[str, ...]
    """The flags of launch.evaluate that the logs declare: the minimum grade of a relevant judgement."""
    initial_runs: Mapping[str, Path]
    """The runs that the systems of an architecture start from; empty without a warm start."""


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
    total = (0 if arguments.logs else 1) + splitting + 2 * len(recipes)
    chain = Chain(folder, total=total, compilation_cache=compilation_cache)
    logs, from_time = Path(arguments.logs), arguments.from_time
    if not arguments.logs:
        logs = folder / "logs"
        from_time = chain.run(_simulate(budget, logs))["test_from"]
    split = _hold_out(chain, arguments, logs, from_time, folder)
    labels, left_out = {}, {}
    for recipe in recipes:
        labels[recipe] = folder / "labels" / recipe.name
        outcome = chain.run(_mine(arguments, recipe, split, labels[recipe]))
        if recipe.perspectives is not None and outcome["skipped"]:
            left_out[recipe] = "; ".join(f"{name}: {why}" for name, why in outcome["skipped"].items())
    kept = {recipe: path for recipe, path in labels.items() if recipe not in left_out}
    records = _write_records(chain, arguments, kept, split, folder, configs)
    towers = (
        {architecture for system in systems for architecture in system.architectures} if arguments.warm_start else ()
    )
    initial_runs = {
        tower: _warm_start(arguments, tower, configs[tower], split, folder, from_time, compilation_cache)
        for tower in sorted({"transformer" if tower == "none" else tower for tower in towers})
    }
    return Shared(
        logs=logs,
        split=split,
        records=records,
        left_out=left_out,
        bm25_results=folder / "bm25.npz",
        evaluate_flags=_declared_grade(arguments, logs),
        initial_runs=initial_runs,
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


def _hold_out(chain: Chain, arguments: CompareArguments, logs: Path, from_time: str, folder: Path) -> Path:
    """Makes the split; with a cross-encoder twice, because it must learn from the training part alone."""

    def hold_out(name: str, output: Path, discriminator: Path | None = None) -> Path:
        decided = ("--discriminator", str(discriminator)) if discriminator else ()
        step = Step(
            name=name,
            module="data.hold_out",
            arguments=("--logs", str(logs), "--from", from_time, *decided, "--output", str(output)),
            inputs=(logs, discriminator) if discriminator else (logs,),
            output=output,
        )
        chain.run(step)
        return output

    if arguments.discriminator == "lexical":
        return hold_out("hold out", folder / "split")
    before = hold_out("hold out for the discriminator", folder / "split_for_discriminator")
    discriminator = folder / "discriminator"
    flags = words_of(arguments.discriminator_flags)
    step = Step(
        name="train the discriminator",
        module="launch.train_discriminator",
        arguments=("--logs", str(before), *flags, "--output", str(discriminator)),
        inputs=(before,),
        output=discriminator,
        in_place=True,
    )
    chain.run(step)
    return hold_out("hold out", folder / "split", discriminator)


def _mine(arguments: CompareArguments, recipe: LabelRecipe, split: Path, labels: Path) -> Step:
    return Step(
        name=f"mine {recipe.name}",
        module="data.mine",
        arguments=("--logs", str(split), *recipe.flags, *words_of(arguments.mine_flags), "--output", str(labels)),
        inputs=(split,),
        output=labels,
    )


def _write_records(
    chain: Chain,
    arguments: CompareArguments,
    labels: Mapping[LabelRecipe, Path],
    split: Path,
    folder: Path,
    configs: Mapping[str, Config],
) -> dict[LabelRecipe, Path]:
    """Writes the records of each distinct label table."""
    encoders = [config.encoder for config in configs.values()]
    lengths = (
        *("--max-tokens", str(max(encoder.max_document_tokens for encoder in encoders))),
        *("--max-query-tokens", str(max(encoder.max_query_tokens for encoder in encoders))),
    )
    weights = configs["transformer"].encoder.weights
    smallest = min(encoder.vocabulary_size for encoder in encoders)
    tokenizer = ("--tokenizer", weights) if weights else ("--vocabulary-size", str(smallest))
    of_labels: dict[str, Path] = {}
    records: dict[LabelRecipe, Path] = {}
    for recipe, path in labels.items():
        output = of_labels.setdefault(artifacts.fingerprint(path), folder / "records" / recipe.name)
        records[recipe] = output
        if output.name != recipe.name:
            continue
        step = Step(
            name=f"write records of {recipe.name}",
            module="data.write_records",
            arguments=("--labels", str(path), "--logs", str(split), *tokenizer, *lengths)
            + (*words_of(arguments.records_flags), "--output", str(output)),
            inputs=(path, split),
            output=output,
        )
        chain.run(step)
        tokenizer = ("--tokenizer", str(_tokenizer(folder)))
    return records


def _tokenizer(folder: Path) -> Path:
    return folder / "records" / TOKENIZER_RECIPE.name / "tokenizer"


def _warm_start(
    arguments: CompareArguments,
    tower: str,
    config: Config,
    split: Path,
    folder: Path,
    from_time: str,
    compilation_cache: Path,
) -> Path:
    """Trains an encoder on the catalogue as launch.pipeline does, with the tokenizer of all records."""
    work = folder / WARM_START / tower
    work.mkdir(parents=True, exist_ok=True)
    heading = f"The configuration of the encoder that every system of these towers starts from ({tower})."
    artifacts.write_text(work / "config.py", as_module(config, heading=heading))
    as_pipeline = PipelineArguments(
        logs=str(split),
        output=str(work),
        from_time=from_time,
        tokenizer=str(_tokenizer(folder)),
        warm_start=True,
        warm_start_flags=arguments.warm_start_flags,
        config=config,
    )
    steps = list(warm_start_steps(as_pipeline, split, work / "encoder"))
    chain = Chain(work, total=len(steps), compilation_cache=compilation_cache)
    for step in steps:
        chain.run(step)
    return steps[-1].output
