"""The systems of the comparison on real data. All trained ones start from the same weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.baselines import nce
from launch.comparison.real.measures import LABELS, meanings
from launch.comparison.real.settings import RealSet, real_set
from launch.comparison.results.table import WORLD, Catalogue, Pair
from launch.comparison.systems import LabelRecipe, System

_GRADED = "graded"
PEER = "sentence_transformers"
_LEAD = (
    "Every system has the same split, queries, documents and token limits, and every encoder starts from the same "
    "weights. The trained ones are presented the same number of documents and have the same tuning grid on dev; their "
    "last step is measured."
)


@dataclass(frozen=True, kw_only=True)
class JudgedLabels(LabelRecipe):
    """Labels from judgements, with negatives from the ranking of BM25."""

    perspectives: tuple[str, ...] | None = None
    grade_levels: str
    """--grade-levels of data.mine."""
    lexical_negatives: int = 0
    """The number of documents at level 0 that are added for each query."""

    @property
    def name(self) -> str:
        negatives = f"+bm25_{self.lexical_negatives}" if self.lexical_negatives else ""
        return f"judged-{self.grade_levels.replace('=', '_').replace(',', '-')}{negatives}"

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--judgements-as-labels", "--grade-levels", self.grade_levels)


def catalogue_of(real: str) -> Catalogue:
    """Returns the systems and metrics of a real data set, or those of a world for an empty name.

    Raises InputError if there is no data set of this name.
    """
    return real_catalogue(real_set(real)) if real else WORLD


def real_catalogue(settings: RealSet) -> Catalogue:
    """Returns the systems and the metrics of the comparison on a data set."""
    metrics = {metric: LABELS[metric] for metric in settings.metrics}
    systems = real_systems(settings)
    return Catalogue(
        systems=systems,
        metrics=metrics,
        reference=_GRADED,
        lead=_LEAD,
        pairs=[Pair("fusion", "transformer", "bm25", "none", metric) for metric in metrics],
        meanings=meanings(metrics),
    )


def real_systems(settings: RealSet) -> dict[str, System]:
    """Returns the systems of a data set by name, in the order in which they are trained."""
    pairs, graded = pair_labels(settings), graded_labels(settings)
    systems = (*_not_trained(pairs), *_of_pairs(settings, pairs), *_graded(settings, graded))
    return {system.name: system for system in systems}


def pair_labels(settings: RealSet) -> LabelRecipe:
    """Returns the labels of the systems that learn from pairs of a query and a positive."""
    return JudgedLabels(grade_levels=settings.positives) if settings.positives else LabelRecipe(levels="binary")


def graded_labels(settings: RealSet) -> LabelRecipe:
    """Returns the labels with levels."""
    if not settings.grades:
        return LabelRecipe(perspectives=None)
    return JudgedLabels(grade_levels=settings.grades, lexical_negatives=settings.lexical_negatives)


def _not_trained(labels: LabelRecipe) -> tuple[System, ...]:
    """Returns the systems that do not learn, of one cell each. BM25 is measured beside the untrained encoder."""

    def bm25(name: str, k1: float, b: float, of: str) -> System:
        return System(
            name=name,
            architectures=("none",),
            labels=labels,
            trained=False,
            ranked_by="bm25",
            evaluate_flags=("--k1", f"{k1:g}", "--b", f"{b:g}"),
            runs_of="untrained",
            about=f"BM25 in Lucene's form with k1 = {k1:g} and b = {b:g}, {of}. It does not learn.",
        )

    untrained = System(
        name="untrained",
        architectures=("none",),
        labels=labels,
        trained=False,
        about="The encoder with the weights that training starts from.",
    )
    return (
        bm25("bm25", 1.2, 0.75, "the defaults of Lucene"),
        bm25("bm25_anserini", 0.9, 0.4, "the defaults of Anserini"),
        untrained,
    )


def _of_pairs(settings: RealSet, labels: LabelRecipe) -> tuple[System, ...]:
    config = _changes(nce.CHANGES, settings.batch, 1)
    return (
        System(
            name="nce",
            labels=labels,
            config=config,
            about="InfoNCE on pairs of a query and a positive, with the other documents of the batch as negatives.",
        ),
        System(
            name=PEER,
            labels=labels,
            config=config,
            about="The package sentence-transformers with MultipleNegativesRankingLoss on the pairs of nce, in batches "
            "without duplicates. Its trained weights are measured by the same program as all others.",
        ),
    )


def _graded(settings: RealSet, labels: LabelRecipe) -> tuple[System, ...]:
    config = _changes({}, *settings.graded_batch)
    negatives = settings.lexical_negatives
    more = f" Each query has {negatives} more at level 0 from ranks 20 to 100 of BM25." if negatives else ""
    source = f"the levels of the grades ({settings.grades})" if settings.grades else "the levels of CroPS from the log"
    return (
        System(name=_GRADED, labels=labels, config=config, about=f"H-InfoNCE over {source}.{more}"),
        System(
            name="fusion",
            labels=labels,
            config=config,
            ranked_by="fusion_weighted",
            runs_of=_GRADED,
            about="The system graded and BM25 (k1 = 1.2, b = 0.75), joined by a weighted sum of their scores; dev "
            "queries choose the weight.",
        ),
        System(
            name="reranked",
            labels=labels,
            config=config,
            ranked_by="reranked",
            evaluate_flags=("--rerank", "100"),
            runs_of=_GRADED,
            about="The first 100 documents of graded in the order of the relevance discriminator.",
        ),
    )


def _changes(changes: Mapping[str, dict[str, Any]], queries: int, documents: int) -> dict[str, dict[str, Any]]:
    """Returns the changes of a configuration with these sizes of a batch."""
    return {**changes, "data": {"queries_per_batch": queries, "documents_per_query": documents}}
