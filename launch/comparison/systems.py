"""The systems that launch.compare compares. A system is a set of labels and a change of the base configuration.

A new system is one more entry of _REGISTERED, in a few lines; configs/baselines holds the changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.baselines import (
    distilled,
    distilled_margin_mse,
    fs_lr_lambda,
    fs_lr_ranknet,
    nce,
    nce_binary,
    nce_log_q,
    poly_encoder,
)
from configs.baselines.hard_negatives import adore, ance, dpr, sampled, star
from configs.baselines.losses import infonce, multi_positive_infonce, rince, softmax_cross_entropy
from crops_jax.errors import InputError
from launch.comparison.phases import schedules
from launch.comparison.phases.plan import Phase, Refreshes

Architecture = Literal["transformer", "hashed", "none"]
BOTH: tuple[Architecture, ...] = ("transformer", "hashed")
ALL_PERSPECTIVES = ("search_log", "query_level", "system_level", "knowledge_level")


def tower_of(architecture: str) -> str:
    """Returns the towers that an architecture starts from and is compared with: the transformer for "none"."""
    return "transformer" if architecture == "none" else architecture


@dataclass(frozen=True, kw_only=True)
class LabelRecipe:
    """The flags of data.mine that make the labels of a system. Systems with equal recipes share labels and records."""

    perspectives: tuple[str, ...] | None = ("search_log",)
    """The perspectives. None: every perspective whose tables are present."""
    levels: str = "hla"
    """The assignment of levels, as --levels of data.mine takes it."""

    @property
    def name(self) -> str:
        """The name of the directory of these labels."""
        perspectives = "all" if self.perspectives is None else "+".join(self.perspectives)
        return f"{perspectives}-{self.levels}"

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of data.mine."""
        chosen = () if self.perspectives is None else ("--perspectives", ",".join(self.perspectives))
        return (*chosen, "--levels", self.levels)


Ranking = Literal[
    "encoder", "bm25", "fusion_rrf", "fusion_weighted", "reranked", "poly_encoder", "poly_encoder_exhaustive"
]
"""A system of launch.evaluate."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One system of the comparison: what it learns from, and how its configuration differs from the base."""

    name: str
    architectures: tuple[Architecture, ...] = ("transformer",)
    """The towers that it is trained with; "none" for a system that does not learn."""
    labels: LabelRecipe = LabelRecipe()
    config: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Section -> field -> value: the fields of the configuration that differ from the base."""
    lexical_negatives: bool = False
    """Whether its records have negatives by BM25 in place of those of its labels."""
    refreshes: Refreshes | None = None
    """The refreshes of negatives that the trainer mines with its own weights; None: the records have the negatives."""
    phases: tuple[Phase, ...] = ()
    """The phases of a training that is several runs. `config` is that of the last one. Empty: one run."""
    scored: bool = False
    """Whether its records hold the discriminator's scores of their documents, which its loss distils."""
    trained: bool = True
    """False: the weights stay those of step 0."""
    ranked_by: Ranking = "encoder"
    """The system of launch.evaluate that is measured."""
    evaluate_flags: tuple[str, ...] = ()
    """Further flags of launch.evaluate that this ranking needs."""
    runs_of: str = ""
    """The name of the system whose runs are evaluated, for one that trains none of its own. It has the same labels and
    configuration."""
    reranks: str = ""
    """The name of the system whose runs retrieve the documents that the runs of this one rerank (a Poly-encoder)."""
    seeds: int = 3
    """The number of seeds that it is trained with by default: 3 for the systems of the paper's tables and of the
    ablations, and 2 for those that stand beside them."""
    groups: tuple[str, ...] = ("systems",)
    """The tables of the page that show it, keys of GROUPS."""
    about: str
    """One sentence: what the system is, with the paper that it comes from."""


GROUPS = {
    "systems": "Systems",
    "perspectives": "Ablation of the perspectives, cumulative and each alone",
    "labels": "Ablation of the levels",
    "losses": "Ablation of the loss",
}
"""The tables of the page with their headings."""

_CLICKS = LabelRecipe()
_BINARY = LabelRecipe(levels="binary")
_EVERYTHING = LabelRecipe(perspectives=None)


def _loss(name: str, changes: Mapping[str, dict[str, Any]], about: str) -> System:
    """Returns the system that differs from crops in its loss alone."""
    return System(name=name, labels=_EVERYTHING, config=changes, groups=("losses",), about=about)


def _distilling(name: str, changes: Mapping[str, dict[str, Any]], about: str) -> System:
    """Returns the system crops that also learns the discriminator's scores."""
    return System(
        name=name,
        labels=_EVERYTHING,
        config=changes,
        scored=True,
        groups=("systems", "losses"),
        seeds=2,
        about=about,
    )


def _on_top(name: str, ranked_by: Ranking, about: str, *, flags: tuple[str, ...] = ()) -> System:
    """Returns the system that evaluates the runs of crops with another ranking."""
    return System(
        name=name,
        labels=_EVERYTHING,
        ranked_by=ranked_by,
        evaluate_flags=flags,
        runs_of="crops",
        seeds=2,
        about=about,
    )


_REGISTERED = (
    System(
        name="bm25",
        architectures=("none",),
        trained=False,
        ranked_by="bm25",
        about="BM25 in Lucene's form with k1 = 1.2 and b = 0.75. It does not learn.",
    ),
    System(
        name="bm25_anserini",
        architectures=("none",),
        trained=False,
        ranked_by="bm25",
        evaluate_flags=("--k1", "0.9", "--b", "0.4"),
        about="BM25 in Lucene's form with k1 = 0.9 and b = 0.4, the defaults of Anserini. It does not learn.",
    ),
    System(
        name="bm25_tuned",
        architectures=("none",),
        trained=False,
        ranked_by="bm25",
        evaluate_flags=("--tune-bm25",),
        about="BM25 in Lucene's form, with the k1 and b of 16 pairs that are best on dev queries.",
    ),
    System(
        name="untrained",
        architectures=BOTH,
        trained=False,
        seeds=2,
        about="The encoder with the weights that training starts from.",
    ),
    System(
        name="nce",
        architectures=BOTH,
        labels=_BINARY,
        config=nce.CHANGES,
        about="InfoNCE on clicks. The negatives of a query are the positives of the other queries of its batch.",
    ),
    System(
        name="nce_log_q",
        labels=_BINARY,
        config=nce_log_q.CHANGES,
        seeds=2,
        about="The system nce with the logQ correction (Yi et al., RecSys 2019).",
    ),
    System(
        name="nce_binary",
        labels=_BINARY,
        config=nce_binary.CHANGES,
        seeds=2,
        about="The system nce under binary noise contrastive estimation (Gutmann and Hyvarinen, AISTATS 2010).",
    ),
    System(
        name="dpr",
        labels=_BINARY,
        config=dpr.CHANGES,
        lexical_negatives=True,
        about="DPR: nce with one BM25 hard negative of each query (Karpukhin et al., EMNLP 2020, arXiv 2004.04906).",
    ),
    System(
        name="star",
        labels=_BINARY,
        config=star.CHANGES,
        refreshes=schedules.STAR,
        seeds=2,
        about="STAR: one static hard negative of a warm-up model (Zhan et al., SIGIR 2021, arXiv 2104.08051).",
    ),
    System(
        name="adore",
        labels=_BINARY,
        config=adore.CHANGES,
        phases=schedules.ADORE,
        seeds=2,
        about="ADORE: the query tower on its own nearest documents, after nce (Zhan et al., arXiv 2104.08051).",
    ),
    System(
        name="adore_star",
        labels=_BINARY,
        config=adore.CHANGES,
        phases=schedules.ADORE_STAR,
        about="ADORE after STAR: the query tower on its own nearest documents (Zhan et al., arXiv 2104.08051).",
    ),
    System(
        name="ance",
        labels=_BINARY,
        config=ance.CHANGES,
        lexical_negatives=True,
        refreshes=schedules.ANCE,
        about="ANCE: negatives that the model itself mines anew 3 times (Xiong et al., ICLR 2021, arXiv 2007.00808).",
    ),
    System(
        name="trisampler",
        labels=_BINARY,
        config=sampled.CHANGES,
        refreshes=schedules.TRISAMPLER,
        about="TriSampler: two refreshes with quasi-triangular negatives (Yang et al., WWW 2024, arXiv 2402.11855).",
    ),
    System(
        name="simans",
        labels=_BINARY,
        config=sampled.CHANGES,
        refreshes=schedules.SIMANS,
        seeds=2,
        about="SimANS: two refreshes with ambiguous negatives (Zhou et al., EMNLP 2022, arXiv 2210.11773).",
    ),
    System(
        name="fs_lr_ranknet",
        labels=_CLICKS,
        config=fs_lr_ranknet.CHANGES,
        seeds=2,
        about="FS-LR under RankNet: all pairs of different stages of the funnel count alike.",
    ),
    System(
        name="fs_lr_lambda",
        labels=_CLICKS,
        config=fs_lr_lambda.CHANGES,
        seeds=2,
        about="FS-LR under LambdaLoss over the stages of the funnel (Zheng et al., WWW 2024, arXiv 2405.04844).",
    ),
    System(
        name="fs_lr",
        architectures=BOTH,
        labels=_CLICKS,
        groups=("systems", "perspectives"),
        about="FS-LR: the search log alone, with the levels of the funnel, under H-InfoNCE (the baseline of CroPS).",
    ),
    System(
        name="crops",
        architectures=BOTH,
        labels=_EVERYTHING,
        groups=tuple(GROUPS),
        about="CroPS: all perspectives, hierarchical label assignment and H-InfoNCE (arXiv 2511.15443).",
    ),
    _distilling(
        "distilled",
        distilled.CHANGES,
        "CroPS that also learns the scores of the relevance discriminator (Hinton et al., arXiv 1503.02531).",
    ),
    _distilling(
        "distilled_margin_mse",
        distilled_margin_mse.CHANGES,
        "CroPS that also learns the margins of the relevance discriminator (arXiv 2010.02666).",
    ),
    _on_top(
        "fusion_rrf",
        "fusion_rrf",
        "CroPS and BM25, joined by reciprocal rank fusion (Cormack et al., SIGIR 2009).",
    ),
    _on_top(
        "fusion",
        "fusion_weighted",
        "CroPS and BM25, joined by a weighted sum of their scores; dev queries choose the weight.",
    ),
    _on_top(
        "reranked",
        "reranked",
        "The first 100 documents of CroPS in the order of the relevance discriminator. On logs of your own, it also "
        "decides which documents belong to QR.",
        flags=("--rerank", "100"),
    ),
    System(
        name="poly_encoder",
        labels=_EVERYTHING,
        config=poly_encoder.CHANGES,
        ranked_by="poly_encoder",
        reranks="crops",
        seeds=2,
        about="The first 200 documents of CroPS in the order of a Poly-encoder with 64 codes (arXiv 1905.01969).",
    ),
    System(
        name="poly_encoder_upper_bound",
        labels=_EVERYTHING,
        config=poly_encoder.CHANGES,
        ranked_by="poly_encoder_exhaustive",
        evaluate_flags=("--every-document",),
        runs_of="poly_encoder",
        reranks="crops",
        seeds=2,
        about="All documents in the order of the same Poly-encoder: what late interaction could reach, at any cost.",
    ),
    System(
        name="crops_query_level",
        labels=LabelRecipe(perspectives=ALL_PERSPECTIVES[:2]),
        groups=("perspectives",),
        about="The search log and the query level: the first step of the cumulative ablation, and this level alone.",
    ),
    System(
        name="crops_query_system",
        labels=LabelRecipe(perspectives=ALL_PERSPECTIVES[:3]),
        groups=("perspectives",),
        about="The search log, the query level and the system level: the second step of the cumulative ablation.",
    ),
    System(
        name="crops_system_level",
        labels=LabelRecipe(perspectives=("search_log", "system_level")),
        groups=("perspectives",),
        about="The search log and the system level.",
    ),
    System(
        name="crops_knowledge_level",
        labels=LabelRecipe(perspectives=("search_log", "knowledge_level")),
        groups=("perspectives",),
        about="The search log and the knowledge level.",
    ),
    System(
        name="crops_binary",
        labels=LabelRecipe(perspectives=None, levels="binary"),
        groups=("labels",),
        about="CroPS with binary labels: levels 4 and 5 are positive, and all others negative.",
    ),
    System(
        name="crops_query_level_at_4",
        labels=LabelRecipe(perspectives=None, levels="query_level_at_4"),
        groups=("labels",),
        about="CroPS with positives of the query level at level 4, the level of clicks.",
    ),
    _loss("infonce", infonce.CHANGES, "CroPS under InfoNCE. A step contrasts one positive of each query."),
    _loss(
        "multi_positive",
        multi_positive_infonce.CHANGES,
        "CroPS under InfoNCE with all positives of a query in one pass.",
    ),
    _loss(
        "softmax_cross_entropy",
        softmax_cross_entropy.CHANGES,
        "CroPS under softmax cross-entropy with levels as gains.",
    ),
    _loss("rince", rince.CHANGES, "CroPS under ranking InfoNCE (Hoffmann et al., AAAI 2022), form OUT."),
)
SYSTEMS = {system.name: system for system in _REGISTERED}
"""The systems by name, in the order in which they are trained."""


def chosen_systems(text: str, *, among: Mapping[str, System] = SYSTEMS) -> list[System]:
    """Returns the systems of a comma-separated list, in the order of `among`; all of them for an empty text.

    Raises InputError if a name is unknown or named more than once.
    """
    names = [name.strip() for name in text.split(",") if name.strip()] if text else list(among)
    unknown = [name for name in names if name not in among]
    if unknown or not names or len(set(names)) < len(names):
        raise InputError(f"--systems {text!r}: name some of {', '.join(among)}, each once")
    return [system for name, system in among.items() if name in names]
