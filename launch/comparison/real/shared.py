"""The steps that the cells of a real data set share, each made once.

TABLE/shared/split                       the training part and the test part
TABLE/shared/discriminator               the cross-encoder, with --discriminator cross_encoder
TABLE/shared/labels/RECIPE               the label table of a recipe
TABLE/shared/labels/RECIPE.judged        the same without negatives of BM25
TABLE/shared/records/RECIPE              its records
TABLE/shared/pairs.parquet               the training pairs of nce and of sentence-transformers, as texts
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crops_jax.config import Config
from crops_jax.program.chain import Chain, Step
from data.mining.relevance.theta import FOLDER
from launch.comparison.arguments import CompareArguments
from launch.comparison.real.lexical_negatives import add_lexical_negatives
from launch.comparison.real.pairs import number_of_pairs, write_pairs
from launch.comparison.real.peer import peer_absence
from launch.comparison.real.settings import RealSet
from launch.comparison.real.systems import PEER, JudgedLabels, pair_labels
from launch.comparison.shared import ALL_LABELS, SHARED, Shared, report_step
from launch.comparison.systems import LabelRecipe, System
from launch.steps.arguments import PipelineArguments, words_of
from launch.steps.programs import records_step, splitting_steps


@dataclass(frozen=True, kw_only=True)
class RealShared(Shared):
    """The inputs of the cells of a real data set."""

    pairs: Path
    number_of_pairs: int
    reranker: str
    """The folder of the discriminator that reranks; empty for the one that the split keeps."""


def make_real_shared(
    table: Path,
    arguments: CompareArguments,
    settings: RealSet,
    systems: Sequence[System],
    *,
    config: Config,
    compilation_cache: Path,
) -> RealShared:
    """Runs the shared steps that are not done, and returns what they made."""
    folder = table / SHARED
    folder.mkdir(exist_ok=True)
    recipes = list(dict.fromkeys([pair_labels(settings), *(system.labels for system in systems)]))
    as_pipeline = PipelineArguments(
        logs=arguments.logs,
        output=str(folder),
        from_time=settings.from_time,
        by=settings.by,
        fraction=settings.fraction,
        discriminator=arguments.discriminator,
        discriminator_flags=shlex.join(["--weights", arguments.weights, *words_of(arguments.discriminator_flags)]),
        config=config,
    )
    splitting = list(splitting_steps(as_pipeline, folder))
    total = len(splitting) + 2 * len(recipes) + (ALL_LABELS in recipes)
    chain = Chain(folder, total=total, compilation_cache=compilation_cache)
    for step in splitting:
        chain.run(step)
    split = splitting[-1].output
    reranker = str(folder / "discriminator") if arguments.discriminator == "cross_encoder" else ""
    labels, records = {}, {}
    for recipe in recipes:
        labels[recipe] = _labels(chain, arguments, recipe, split, folder)
        records[recipe] = folder / "records" / recipe.name
        step = records_step(
            f"write records of {recipe.name}",
            as_pipeline,
            labels[recipe],
            split,
            records[recipe],
            vocabulary=("--tokenizer", arguments.weights),
            flags=("--dev-fraction", f"{settings.dev_fraction:g}", *words_of(arguments.records_flags)),
        )
        chain.run(step)
    reported = chain.run(report_step(labels[ALL_LABELS], split, folder)) if ALL_LABELS in recipes else {}
    first, pairs = recipes[0], folder / "pairs.parquet"
    write_pairs(labels[first], split, records[first], pairs)
    return RealShared(
        logs=Path(arguments.logs),
        split=split,
        labels=labels,
        records=records,
        left_out={},
        bm25_results=folder / "bm25.npz",
        evaluate_flags=(),
        initial_runs={},
        labels_report=reported,
        absent=_absent(systems, split, reranker),
        pairs=pairs,
        number_of_pairs=number_of_pairs(pairs),
        reranker=reranker,
    )


def _labels(chain: Chain, arguments: CompareArguments, recipe: LabelRecipe, split: Path, folder: Path) -> Path:
    """Makes the label table of a recipe, with its negatives of BM25, and returns its directory."""
    labels = folder / "labels" / recipe.name
    negatives = recipe.lexical_negatives if isinstance(recipe, JudgedLabels) else 0
    mined = labels.with_name(f"{labels.name}.judged") if negatives else labels
    step = Step(
        name=f"mine {recipe.name}",
        module="data.mine",
        arguments=("--logs", str(split), *recipe.flags, *words_of(arguments.mine_flags), "--output", str(mined)),
        inputs=(split,),
        output=mined,
    )
    chain.run(step)
    if negatives:
        add_lexical_negatives(mined, split, labels, count=negatives)
    return labels


def _absent(systems: Sequence[System], split: Path, reranker: str) -> dict[str, str]:
    """Returns the systems that cannot be measured, with the reason."""
    names, absent = {system.name for system in systems}, {}
    if PEER in names and (why := peer_absence()):
        absent[PEER] = why
    if "reranked" in names and not reranker and not (split / FOLDER).exists():
        absent["reranked"] = (
            "these logs have no clicks to fit a lexical discriminator on; give --discriminator cross_encoder"
        )
    return absent
